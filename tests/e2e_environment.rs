//! What a component is given: its environment, its user, its limits, its descriptors, its log; and
//! the modes of what is kept.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

use support::home::TestHome;

/// What a troublemaker named `api` reports of itself under these keys.
fn report_with(home: &TestHome, keys: &str) -> Value {
    let command = home.trouble(&["--report", "report", "--births", "births"]);
    home.apply(&format!("project: shop\ncomponents:\n  api:\n    command: {command}\n{keys}"));
    report(home)
}

fn report(home: &TestHome) -> Value {
    let text = home.wait_for("the report", || fs::read(home.file("report")).ok());
    serde_json::from_slice(&text).unwrap()
}

fn environment(report: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(report["environment"].clone()).unwrap()
}

/// The name, the home and the shell of a user, as /etc/passwd has them.
fn person(uid: u32) -> [String; 3] {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    match line.map(|line| line.split(':').collect::<Vec<_>>()) {
        Some(fields) => [fields[0].into(), fields[5].into(), fields[6].into()],
        None => [uid.to_string(), "/".into(), "/bin/sh".into()],
    }
}

#[test]
fn the_environment_is_the_documented_base_and_what_is_declared_and_nothing_else() {
    let home = TestHome::new();
    let command = home.trouble(&["--report", "report"]);
    home.manifest(&format!(
        "
project: shop
components:
  api:
    command: {command}
    env: {{ PLAIN: plain, NUMBER: 8080, TRUTH: true, EMPTY: '', FROM_APPLY: null }}
"
    ));
    let mut apply = home.command(["apply"]);
    apply.envs([("FROM_APPLY", "given"), ("LEAKS", "no"), ("LD_LIBRARY_PATH", "/nowhere")]);
    apply.env("SHELL", "/bin/of-the-terminal").env("USER", "somebody").env("TZ", "Asia/Tokyo");
    let path = apply.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
    home.run_command(apply).expect_code(0);

    let report = report(&home);
    let mut found = environment(&report);
    // The tag by which its processes are found again.
    assert!(found.remove("STIGMER_RUN").is_some(), "{found:?}");
    let [user, folder, shell] = person(u32::try_from(report["uid"].as_u64().unwrap()).unwrap());
    let expected = [
        ("PATH", path.to_str().unwrap()),
        ("HOME", &folder),
        ("USER", &user),
        ("SHELL", &shell),
        ("LANG", "C.UTF-8"),
        ("TZ", "Asia/Tokyo"),
        ("STIGMER_PROJECT", "shop"),
        ("STIGMER_COMPONENT", "api"),
        ("STIGMER_REPLICA", "0"),
        ("PLAIN", "plain"),
        ("NUMBER", "8080"),
        ("TRUTH", "true"),
        ("EMPTY", ""),
        ("FROM_APPLY", "given"),
    ];
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_env_file_is_outranked_by_env_and_by_a_later_file() {
    let home = TestHome::new();
    home.write("one.env", "# a comment\nA=one\nB=one\nexport C='quoted one'\n\nD=one\n");
    home.write("two.env", "B=two\nD=two\n");
    home.write("words.env", "WORD=from the file\nOTHER=from the file\n");
    let command = home.trouble(&["--report", "report"]);
    home.manifest(&format!(
        "
env_file: words.env
components:
  api:
    command: {command}
    env_file: [one.env, two.env]
    env: {{ D: declared, WORD: \"${{WORD}}\", OTHER: \"${{OTHER}}\", NONE: \"${{NONE:-default}}\" }}
"
    ));
    let mut apply = home.command(["apply"]);
    // The shell outranks the file of the manifest's variables, and not that of the component's.
    apply.env("OTHER", "from the shell").env("A", "leaks");
    home.run_command(apply).expect_code(0);
    let found = environment(&report(&home));
    for (name, value) in [
        ("A", "one"),
        ("B", "two"),
        ("C", "quoted one"),
        ("D", "declared"),
        ("WORD", "from the file"),
        ("OTHER", "from the shell"),
        ("NONE", "default"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn s48_a_component_has_three_descriptors_and_one_log_that_is_appended_to() {
    let home = TestHome::new();
    let report = report_with(&home, "    restart: { backoff: { initial: 20ms } }\n");
    let api = home.component("api");
    let log = api["log_file"].as_str().unwrap();
    assert_eq!(report["descriptors"], json!({ "0": "/dev/null", "1": log, "2": log }));
    assert!(Path::new(log).ends_with("logs/shop/api.log"), "{log}");

    // Both outputs, of both lives, in their order.
    let flags = ["--say", "to stdout", "--complain", "to stderr", "--exit-after", "0s"];
    let command = home.trouble(&flags);
    home.manifest(&format!(
        "project: shop\ncomponents: {{ api: {{ command: {command}, \
         restart: {{ max_restarts: 1, backoff: {{ initial: 20ms }} }} }} }}\n"
    ));
    home.run(["apply", "--no-wait"]).expect_code(0);
    home.wait_state("api", "failed");
    let text = String::from_utf8(home.log_of("api")).unwrap();
    assert_eq!(text, "to stdout\nto stderr\n".repeat(2));
    let names: Vec<String> = fs::read_dir(Path::new(log).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.contains(".err")), "{names:?}");
}

#[test]
fn the_working_dir_the_umask_the_nice_value_and_the_limits_are_as_declared() {
    let home = TestHome::new();
    fs::create_dir(home.file("inner")).unwrap();
    home.user().into_iter().for_each(|user| user.own(&home.file("inner")));
    let command = home.trouble(&["--report", "../report"]);
    home.apply(&format!(
        "
components:
  api:
    command: {command}
    working_dir: inner
    umask: \"0027\"
    nice: 5
    rlimits:
      nofile: 200
      core: {{ soft: 0, hard: 0 }}
      fsize: {{ soft: 1000000, hard: 2000000 }}
"
    ));
    let report = report(&home);
    assert_eq!(report["working_dir"], json!(home.file("inner")));
    assert_eq!(report["umask"], "0027");
    assert_eq!(report["nice"], 5);
    assert_eq!(report["limits"]["nofile"], json!({ "soft": 200, "hard": 200 }));
    assert_eq!(report["limits"]["core"], json!({ "soft": 0, "hard": 0 }));
    assert_eq!(report["limits"]["fsize"], json!({ "soft": 1_000_000, "hard": 2_000_000 }));
}

#[test]
fn a_component_begins_with_no_signal_blocked_or_ignored() {
    let home = TestHome::new();
    home.apply("components: { api: { command: \"grep Sig /proc/self/status; exec sleep 1000\" } }");
    let log = home.wait_for("the masks", || {
        String::from_utf8(home.log_of("api")).ok().filter(|log| log.contains("SigCgt"))
    });
    for mask in ["SigBlk", "SigIgn"] {
        let line = log.lines().find(|line| line.starts_with(mask)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

#[test]
fn a_component_leads_a_group_and_a_session_of_its_own() {
    let home = TestHome::new();
    let report = report_with(&home, "");
    assert_eq!(report["group"], report["pid"]);
    assert_eq!(report["session"], report["pid"]);
    assert_eq!(report["parent"], home.daemon_pids().unwrap().keeper);
}

#[test]
fn a_user_and_a_group_are_taken_with_their_folder_and_groups() {
    let home = TestHome::new();
    if !home.is_root() {
        eprintln!("skipped: only root can give another user");
        return;
    }
    // The user must reach the program, and write its report.
    let reports = home.file("reports");
    fs::create_dir(&reports).unwrap();
    std::os::unix::fs::chown(&reports, Some(65_534), Some(65_534)).unwrap();
    for folder in [home.root().to_owned(), home.project()] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let command = |name: &str| home.trouble(&["--report", &format!("reports/{name}")]);
    let (by_name, by_number, group) =
        (command("by-name"), command("by-number"), command("with-group"));
    home.apply(&format!(
        "
components:
  by-name: {{ command: {by_name}, user: nobody }}
  by-number: {{ command: {by_number}, user: \"65534\" }}
  with-group: {{ command: {group}, user: nobody, group: daemon }}
"
    ));
    let report = |name: &str| -> Value {
        let text = home.wait_for("the report", || fs::read(reports.join(name)).ok());
        serde_json::from_slice(&text).unwrap()
    };
    let [_, folder, shell] = person(65_534);
    for name in ["by-name", "by-number", "with-group"] {
        let report = report(name);
        assert_eq!(report["uid"], 65_534, "{name}");
        let environment = environment(&report);
        let found = ["USER", "HOME", "SHELL"].map(|variable| environment[variable].as_str());
        assert_eq!(found, ["nobody", &folder, &shell], "{name}");
        let groups: Vec<u64> = serde_json::from_value(report["groups"].clone()).unwrap();
        assert!(!groups.contains(&0), "root's groups are given up: {groups:?}");
        // The log is opened for it; the folder of the logs stays closed.
        let log = home.component(name)["log_file"].as_str().unwrap().to_owned();
        assert_eq!(report["descriptors"], json!({ "0": "/dev/null", "1": log, "2": log }));
    }
    assert_eq!(report("with-group")["gid"], gid_of("daemon"));
    assert_ne!(report("by-name")["gid"], 0);
}

fn gid_of(group: &str) -> u32 {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find(|line| line.split(':').next() == Some(group)).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

#[test]
fn everything_in_the_home_is_for_its_owner_alone() {
    let home = TestHome::new();
    let mut apply = home.command(["apply"]);
    let command = home.trouble(&["--say", "a line", "--report", "report"]);
    home.manifest(&format!("project: shop\ncomponents: {{ api: {{ command: {command} }} }}"));
    // However open the shell is.
    let mut open = std::process::Command::new("/bin/sh");
    open.args(["-c", "umask 000; exec \"$0\" apply"]).arg(apply.get_program());
    open.current_dir(home.project()).env_clear();
    open.envs(apply.get_envs().filter_map(|(name, value)| Some((name, value?))));
    home.user().into_iter().for_each(|user| user.run(&mut open));
    home.run_command(open).expect_code(0);
    report(&home);

    let socket = home.home().join("run/stigmer.sock");
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    let mut folders = vec![home.home()];
    let mut seen = Vec::new();
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path) & 0o177, 0, "{} {:o}", path.display(), mode(&path));
                seen.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    for name in ["api.log", "daemon.log", "stigmer.sock", "state.db"] {
        assert!(seen.iter().any(|found| found == name), "no {name} in {seen:?}");
    }
    apply.env_clear();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}
