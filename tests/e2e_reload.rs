//! Hot reload: files that change while the daemon runs, in all the ways in which files change.

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::process::Signal;
use serde_json::Value;

use support::home::TestHome;
use support::look::signal;

/// Two components: `api` with a variable of this value, `web` that never changes.
fn two(home: &TestHome, value: &str) -> String {
    let api = home.troublemaker("api", &["--report", "report-api"]);
    let web = home.troublemaker("web", &[]);
    format!(
        "project: shop
components:
  api:
    command: {api}
    env: {{ VALUE: '{value}' }}
  web:
    command: {web}
"
    )
}

/// What `api` sees of the variable.
fn value_of(home: &TestHome) -> Option<String> {
    let report = fs::read(home.file("report-api")).ok()?;
    let report: Value = serde_json::from_slice(&report).ok()?;
    report["environment"]["VALUE"].as_str().map(str::to_owned)
}

/// Waits until `api` runs with this value.
#[track_caller]
fn wait_value(home: &TestHome, value: &str) {
    home.wait_for(&format!("VALUE={value}"), || {
        (value_of(home)? == value && home.try_component("api")?["state"] == "running").then_some(())
    });
}

/// After an edit of `api`: it was replaced once more, and nothing else was touched.
#[track_caller]
fn only_api(home: &TestHome, births: usize, web: u32) {
    home.wait_ready("api");
    // It writes its report before its birth.
    home.wait_for("the birth of api", || (home.births("api").len() >= births).then_some(()));
    assert_eq!(home.births("api").len(), births);
    assert_eq!(home.births("web").len(), 1);
    assert_eq!(home.pid_of("web"), web);
    assert_eq!(home.component("api")["restarts"]["total"], 0, "an edit is no mishap");
}

#[test]
fn a_file_saved_by_renaming_and_then_in_place_restarts_just_what_changed() {
    let home = TestHome::new();
    home.apply(&two(&home, "one"));
    let web = home.pid_of("web");
    home.manifest(&two(&home, "two"));
    wait_value(&home, "two");
    only_api(&home, 2, web);
    fs::write(home.file("stigmer.yaml"), two(&home, "three")).unwrap();
    wait_value(&home, "three");
    only_api(&home, 3, web);
    // Saved again as it was, or with another comment: nothing happens, and that is known once the
    // next change has been seen.
    let generation = home.generation();
    home.manifest(&two(&home, "three"));
    home.manifest(&format!("# a comment\n{}", two(&home, "three")));
    home.wait_generation(generation);
    only_api(&home, 3, web);
}

#[test]
fn links_that_are_swapped_are_followed() {
    let home = TestHome::new();
    home.write("one.yaml", two(&home, "one"));
    home.write("two.yaml", two(&home, "two"));
    symlink("one.yaml", home.file("stigmer.yaml")).unwrap();
    home.run(["apply"]).expect_code(0);
    let web = home.pid_of("web");
    symlink("two.yaml", home.file("next")).unwrap();
    fs::rename(home.file("next"), home.file("stigmer.yaml")).unwrap();
    wait_value(&home, "two");
    only_api(&home, 2, web);
    // The target of the link is what the daemon reads, too.
    home.write("two.yaml", two(&home, "three"));
    wait_value(&home, "three");
    only_api(&home, 3, web);
}

#[test]
fn a_volume_of_kubernetes_is_swapped_by_its_data_link() {
    let home = TestHome::new();
    for value in ["one", "two", "three"] {
        fs::create_dir(home.file(value)).unwrap();
        home.write(format!("{value}/stigmer.yaml"), two(&home, value));
    }
    symlink("one", home.file("..data")).unwrap();
    symlink("..data/stigmer.yaml", home.file("stigmer.yaml")).unwrap();
    home.run(["apply"]).expect_code(0);
    let web = home.pid_of("web");
    for (count, value) in [(2, "two"), (3, "three")] {
        symlink(value, home.file("..data_tmp")).unwrap();
        fs::rename(home.file("..data_tmp"), home.file("..data")).unwrap();
        wait_value(&home, value);
        only_api(&home, count, web);
    }
}

#[test]
fn an_env_file_of_a_component_restarts_just_that_component() {
    let home = TestHome::new();
    home.write("api.env", "VALUE=one\n");
    let yaml = two(&home, "-").replace("env: { VALUE: '-' }", "env_file: [api.env]");
    home.apply(&yaml);
    wait_value(&home, "one");
    let web = home.pid_of("web");
    home.write("api.env", "VALUE=two\n");
    wait_value(&home, "two");
    only_api(&home, 2, web);
    fs::write(home.file("api.env"), "# in place\nexport VALUE='three'\n").unwrap();
    wait_value(&home, "three");
    only_api(&home, 3, web);
    // A file that is gone is a mistake of the manifest: everything runs on.
    fs::remove_file(home.file("api.env")).unwrap();
    home.wait_for("an error", || {
        let status = home.try_status_json()?;
        Some(status["projects"][0]["manifest"]["error"]["message"].as_str()?.to_owned())
            .filter(|message| message.contains("api.env"))
    });
    only_api(&home, 3, web);
    home.write("api.env", "VALUE=four\n");
    wait_value(&home, "four");
    only_api(&home, 4, web);
}

#[test]
fn an_env_file_for_the_manifest_restarts_what_it_changes() {
    let home = TestHome::new();
    home.write("values.env", "SOME=one\nOTHER=x\n");
    let yaml = format!("env_file: values.env\n{}", two(&home, "${SOME}"));
    home.apply(&yaml);
    wait_value(&home, "one");
    let web = home.pid_of("web");
    home.write("values.env", "SOME=two\nOTHER=y\n");
    wait_value(&home, "two");
    only_api(&home, 2, web);
}

#[test]
fn what_a_process_cannot_see_is_changed_in_place() {
    let home = TestHome::new();
    let base = two(&home, "one");
    home.apply(&base);
    let (api, web) = (home.pid_of("api"), home.pid_of("web"));
    let mut yaml = base;
    for (addition, key) in [
        ("    probes: { liveness: { process: {}, interval: 50ms } }\n", "probes"),
        ("    restart: { max_restarts: 3, backoff: { initial: 100ms } }\n", "restart"),
        ("    labels: { team: blue }\n", "labels"),
        ("    logs: { max_size: 1MB, max_files: 2 }\n", "logs"),
        ("    stop: { signal: SIGINT, timeout: 3s }\n", "stop"),
        ("    depends_on: { web: started }\n", "depends_on"),
        ("    ports: [1234]\n", "ports"),
    ] {
        let generation = home.generation();
        let updates = home.events_of("api", "updated").len();
        yaml = yaml.replace("  web:\n", &format!("{addition}  web:\n"));
        home.manifest(&yaml);
        home.wait_generation(generation);
        assert_eq!((home.pid_of("api"), home.pid_of("web")), (api, web), "after {key}");
        assert_eq!(home.events_of("api", "updated").len(), updates + 1, "after {key}");
    }
    home.wait_probe("api", "liveness", "success");
    let component = home.component("api");
    assert_eq!(component["restarts"]["limit"], 3);
    assert_eq!(component["labels"]["team"], "blue");
    assert_eq!(component["ports"], serde_json::json!([1234]));
    assert_eq!(home.births("api").len(), 1);
}

#[test]
fn components_come_go_and_are_renamed() {
    let home = TestHome::new();
    home.apply(&two(&home, "one"));
    let (api, web) = (home.pid_of("api"), home.pid_of("web"));
    let cache = home.troublemaker("cache", &[]);
    home.manifest(&format!("{}  cache:\n    command: {cache}\n", two(&home, "one")));
    home.wait_ready("cache");
    let old = home.pid_of("cache");
    let store = home.troublemaker("store", &[]);
    home.manifest(&format!("{}  store:\n    command: {store}\n", two(&home, "one")));
    home.wait_ready("store");
    home.wait_for("the old name to be gone", || {
        home.try_component("cache").is_none().then_some(())
    });
    assert!(support::processes::Process::open(old).is_none());
    assert_eq!(home.births("cache").len(), 1);
    home.manifest(&two(&home, "one"));
    home.wait_for("it to be gone", || home.try_component("store").is_none().then_some(()));
    assert_eq!((home.pid_of("api"), home.pid_of("web")), (api, web));
    home.wait_event("removed", |event| event["component"] == "store" && event["kind"] == "removed");
}

#[test]
fn replicas_up_and_down_leave_the_others_alone() {
    let home = TestHome::new();
    let yaml = |count: u32| {
        format!("components:\n  api:\n    command: [sleep, infinity]\n    replicas: {count}\n")
    };
    home.apply(&yaml(2));
    let pids = [home.pid_of("api"), home.pid_of("api.1")];
    home.manifest(&yaml(4));
    home.wait_ready("api.2");
    home.wait_ready("api.3");
    let third = home.pid_of("api.2");
    assert_eq!([home.pid_of("api"), home.pid_of("api.1")], pids);
    home.manifest(&yaml(1));
    home.wait_for("one to be left", || {
        let status = home.try_status_json()?;
        (status["components"].as_array()?.len() == 1).then_some(())
    });
    assert_eq!(home.pid_of("api"), pids[0]);
    assert!(support::processes::Process::open(third).is_none());
}

#[test]
fn several_edits_in_a_row_end_in_the_last_one() {
    let home = TestHome::new();
    home.apply(&two(&home, "0"));
    let web = home.pid_of("web");
    for number in 1..=30 {
        if number % 2 == 0 {
            home.manifest(&two(&home, &number.to_string()));
        } else {
            fs::write(home.file("stigmer.yaml"), two(&home, &number.to_string())).unwrap();
        }
    }
    wait_value(&home, "30");
    home.wait_ready("api");
    assert_eq!(home.pid_of("web"), web);
    home.births("api");
    home.births("web");
    let dry = home.run(["apply", "--dry-run", "--detailed-exitcode"]).expect_code(0);
    assert!(dry.stdout.contains("2 unchanged"), "{dry:#?}");
}

#[test]
fn reload_by_hand_changes_nothing_and_with_a_name_replaces_gracefully() {
    let home = TestHome::new();
    let yaml = two(&home, "one").replace("env:", "stop: { timeout: 5s }\n    env:");
    let yaml = yaml.replace("\"report-api\"", "\"report-api\", \"--on-term\", \"exit\"");
    home.apply(&yaml);
    let (api, web) = (home.pid_of("api"), home.pid_of("web"));
    home.run(["reload"]).expect_code(0);
    assert_eq!((home.pid_of("api"), home.pid_of("web")), (api, web));
    home.run(["reload", "api"]).expect_code(0);
    let after = home.pid_of("api");
    assert_ne!(after, api);
    assert_eq!(home.pid_of("web"), web);
    assert_eq!(home.births("api").len(), 2);
    assert!(String::from_utf8_lossy(&home.log_of("api")).contains("got SIGTERM"));
    assert!(home.events_of("api", "killed").is_empty());
    home.run(["reload", "nobody"]).expect_code(4);
    // A reload leaves alone what was stopped by hand; `apply` does not.
    home.run(["stop", "web"]).expect_code(0);
    home.run(["reload"]).expect_code(0);
    assert_eq!(home.component("web")["state"], "stopped");
    home.run(["apply"]).expect_code(0);
    home.wait_ready("web");
}

#[test]
fn a_reload_by_hand_refuses_an_invalid_manifest() {
    let home = TestHome::new();
    home.apply(&two(&home, "one"));
    home.manifest("components: [\n");
    let refused = home.run(["reload"]).expect_code(5);
    assert!(refused.stderr.contains("stigmer.yaml"), "{refused:#?}");
    assert_eq!(home.component("api")["state"], "running");
    assert_eq!(home.births("api").len(), 1);
}

#[test]
fn sighup_of_the_keeper_reads_the_manifests_again() {
    let home = TestHome::new();
    home.apply(&two(&home, "one"));
    let (daemon, api) = (home.daemon_pids().unwrap(), home.pid_of("api"));
    let again = |home: &TestHome| home.daemon_log().matches("reading the manifest again").count();
    assert_eq!(again(&home), 0);
    for count in 1..=3 {
        signal(daemon.keeper, Signal::HUP);
        home.wait_for("a reading", || (again(&home) == count).then_some(()));
    }
    home.run(["ping"]).expect_code(0);
    assert_eq!(home.daemon_pids(), Some(daemon));
    assert_eq!(home.pid_of("api"), api);
    home.manifest(&two(&home, "two"));
    signal(daemon.keeper, Signal::HUP);
    wait_value(&home, "two");
    home.wait_ready("api");
    assert_eq!(home.births("api").len(), 2);
}

#[test]
fn an_edit_while_the_engine_is_away_is_found_by_the_next_one() {
    let home = TestHome::new();
    home.apply(&two(&home, "one"));
    let web = home.pid_of("web");
    home.kill_engine();
    home.manifest(&two(&home, "two"));
    wait_value(&home, "two");
    only_api(&home, 2, web);
}

#[test]
fn a_manifest_with_strange_permissions_is_read_by_whoever_may() {
    let home = TestHome::new();
    home.apply(&two(&home, "one"));
    let path = home.file("stigmer.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    home.run(["reload"]).expect_code(0);
    assert_eq!(home.births("api").len(), 1);
}
