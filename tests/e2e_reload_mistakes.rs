//! Hot reload of what cannot be read: everything runs on, the mistake is told with its place, and the
//! next good save heals (S24).

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use support::home::TestHome;
use support::look::signal;

/// One component with births, and a line that can be made wrong.
fn one(home: &TestHome, line: &str) -> String {
    let api = home.troublemaker("api", &[]);
    format!("project: shop\ncomponents:\n  api:\n    command: {api}\n{line}")
}

/// Waits for an error in the status, and gives it.
#[track_caller]
fn wait_error(home: &TestHome, words: &str) -> Value {
    home.wait_for(&format!("a manifest error with {words:?}"), || {
        let error = home.try_status_json()?["projects"][0]["manifest"]["error"].clone();
        error["message"].as_str()?.contains(words).then_some(error)
    })
}

#[track_caller]
fn wait_healed(home: &TestHome) {
    home.wait_for("the error to be gone", || {
        let status = home.try_status_json()?;
        status["projects"][0]["manifest"]["error"].is_null().then_some(())
    });
}

/// Nothing was touched: the same process, and no second birth.
#[track_caller]
fn runs_on(home: &TestHome, pid: u32) {
    assert_eq!(home.pid_of("api"), pid);
    assert_eq!(home.component("api")["state"], "running");
    assert_eq!(home.births("api").len(), 1);
}

#[test]
fn s24_an_unknown_key_is_told_with_its_place_and_healed_by_the_next_save() {
    let home = TestHome::new();
    home.apply(&one(&home, ""));
    let (pid, generation) = (home.pid_of("api"), home.generation());
    let before = home.only_project()["manifest"]["sha256"].clone();
    home.manifest(&one(&home, "    comand: x\n"));
    let error = wait_error(&home, "comand");
    assert_eq!((&error["line"], &error["column"]), (&5.into(), &5.into()), "{error:#}");
    assert!(error["file"].as_str().unwrap().ends_with("/stigmer.yaml"), "{error:#}");
    assert!(error["at"].as_str().unwrap().ends_with('Z'), "{error:#}");
    runs_on(&home, pid);
    assert_eq!(home.generation(), generation);
    assert_eq!(home.only_project()["manifest"]["sha256"], before, "what is in force");

    let event = home.wait_event("rejected", |event| event["kind"] == "manifest_rejected");
    assert_eq!((&event["severity"], &event["component"]), (&"error".into(), &"".into()));
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("stigmer.yaml:5:5") && message.contains("comand"), "{message}");
    assert!(home.daemon_log().contains("manifest rejected"), "{}", home.daemon_log());
    let table = home.run(["status"]).expect_code(0).stdout;
    let first = table.lines().next().unwrap();
    assert!(first.contains("stigmer.yaml") && first.contains('5'), "{table}");

    // A restart in the meantime uses the spec in force.
    signal(pid, rustix::process::Signal::KILL);
    home.wait_replaced("api", pid);
    home.manifest(&one(&home, "    labels: { a: b }\n"));
    wait_healed(&home);
    home.wait_for("the label", || (home.try_component("api")?["labels"]["a"] == "b").then_some(()));
    assert_eq!(home.births("api").len(), 2);
}

#[test]
fn s24_a_half_written_file_is_waited_for() {
    let home = TestHome::new();
    home.apply(&one(&home, ""));
    let pid = home.pid_of("api");
    let whole = one(&home, "    labels: { half: written }\n");
    fs::write(home.file("stigmer.yaml"), &whole[..whole.len() - 12]).unwrap();
    wait_error(&home, "");
    runs_on(&home, pid);
    fs::write(home.file("stigmer.yaml"), "").unwrap();
    home.wait_for("the error of an empty file", || {
        let error = home.try_status_json()?["projects"][0]["manifest"]["error"].clone();
        error["message"].as_str()?.contains("components").then_some(())
    });
    runs_on(&home, pid);
    fs::write(home.file("stigmer.yaml"), &whole).unwrap();
    wait_healed(&home);
    home.wait_for("the label", || {
        (home.try_component("api")?["labels"]["half"] == "written").then_some(())
    });
    runs_on(&home, pid);
}

#[test]
fn s24_a_file_that_vanishes_stops_nothing_and_may_return() {
    let home = TestHome::new();
    let yaml = one(&home, "");
    home.apply(&yaml);
    let (pid, generation) = (home.pid_of("api"), home.generation());
    fs::remove_file(home.file("stigmer.yaml")).unwrap();
    wait_error(&home, "");
    runs_on(&home, pid);
    home.manifest(&yaml);
    wait_healed(&home);
    runs_on(&home, pid);
    assert_eq!(home.generation(), generation, "it is the same as before");
    // Also with its whole folder: away, and back again.
    let away = home.root().join("away");
    fs::rename(home.project(), &away).unwrap();
    let status = |home: &TestHome| {
        let mut command = home.command(["status", "--all", "-o", "json"]);
        command.current_dir(home.root());
        support::command::run(command)
            .ok()
            .and_then(|output| serde_json::from_str::<Value>(&output.stdout).ok())
    };
    home.wait_for("the error", || {
        let status = status(&home)?;
        status["projects"][0]["manifest"]["error"].is_object().then_some(())
    });
    assert_eq!(status(&home).unwrap()["components"][0]["pid"], pid);
    fs::rename(&away, home.project()).unwrap();
    wait_healed(&home);
    runs_on(&home, pid);
}

#[test]
fn s24_what_is_no_file_or_cannot_be_read_is_said() {
    let home = TestHome::new();
    let yaml = one(&home, "");
    home.apply(&yaml);
    let pid = home.pid_of("api");
    fs::remove_file(home.file("stigmer.yaml")).unwrap();
    fs::create_dir(home.file("stigmer.yaml")).unwrap();
    wait_error(&home, "folder");
    runs_on(&home, pid);
    fs::remove_dir(home.file("stigmer.yaml")).unwrap();
    home.manifest(&yaml);
    wait_healed(&home);
    if home.is_root() {
        eprintln!("skipped: root may read every file");
        return;
    }
    fs::set_permissions(home.file("stigmer.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
    home.write("touched", "");
    wait_error(&home, "ermission");
    runs_on(&home, pid);
    fs::set_permissions(home.file("stigmer.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    wait_healed(&home);
    runs_on(&home, pid);
}

#[test]
fn s24_another_project_name_in_the_file_is_no_reload() {
    let home = TestHome::new();
    home.apply(&one(&home, ""));
    let pid = home.pid_of("api");
    home.manifest(&one(&home, "").replace("project: shop", "project: mall"));
    let error = wait_error(&home, "mall");
    assert!(error["message"].as_str().unwrap().contains("stigmer down -p shop"), "{error:#}");
    runs_on(&home, pid);
    home.manifest(&one(&home, ""));
    wait_healed(&home);
    runs_on(&home, pid);
}

#[test]
fn s24_the_mistake_is_still_known_after_a_new_engine() {
    let home = TestHome::new();
    home.apply(&one(&home, ""));
    let pid = home.pid_of("api");
    home.manifest(&one(&home, "    comand: x\n"));
    wait_error(&home, "comand");
    home.kill_engine();
    wait_error(&home, "comand");
    runs_on(&home, pid);
}
