//! `logs`: the last lines, times, filters, following through restarts and the death of the engine.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;

use serde_json::Value;

use support::home::TestHome;

/// A component that says these lines and then lives on.
fn says(home: &TestHome, name: &str, lines: &[&str]) -> String {
    let flags: Vec<String> = lines.iter().map(|line| format!("--say={line}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--say-ready", "up"]).collect();
    let command = home.troublemaker(name, &flags);
    format!(
        "  {name}:
    command: {command}
    restart: {{ backoff: {{ initial: 10ms }} }}
    probes: {{ startup: {{ log: '^up$', interval: 20ms }} }}
"
    )
}

/// The lines of a component without their prefix and without events.
fn plain(home: &TestHome, arguments: &[&str]) -> Vec<String> {
    let all: Vec<&str> = ["logs", "-o", "json"].iter().chain(arguments).copied().collect();
    json_lines(&home.run(all).expect_code(0).stdout)
        .into_iter()
        .filter(|line| line["event"] == false)
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_last_lines_of_each_component_with_a_prefix() {
    let home = TestHome::new();
    let yaml = says(&home, "api", &["one", "two", "three"]) + &says(&home, "long-name", &["four"]);
    home.apply(&format!("components:\n{yaml}"));
    assert_eq!(plain(&home, &["api"]), ["one", "two", "three", "up"]);
    assert_eq!(plain(&home, &["api", "-n", "2"]), ["three", "up"]);
    assert_eq!(plain(&home, &["api", "-n", "0"]), [""; 0]);
    assert_eq!(plain(&home, &["-n", "1"]), ["up", "up"]);
    let text = home.run(["logs"]).expect_code(0).stdout;
    let line = text.lines().find(|line| line.contains("one")).unwrap();
    assert!(line.starts_with("api "), "{text}");
    let four = text.lines().find(|line| line.contains("four")).unwrap();
    assert!(four.starts_with("long-name "), "{text}");
    assert_eq!(line.find("one"), four.find("four"), "prefixes are aligned: {text}");
    let bare = home.run(["logs", "api", "--no-prefix"]).expect_code(0).stdout;
    assert!(bare.lines().any(|line| line == "two"), "{bare}");
    let timed = home.run(["logs", "api", "-t"]).expect_code(0).stdout;
    let two = timed.lines().find(|line| line.contains("two")).unwrap();
    assert!(two.matches(':').count() >= 2, "{two}");
    // A busy daemon notes the time of a line late; what happens from then on comes after it.
    home.wait_for("the times of all lines", || {
        let lines = json_lines(&home.run(["logs", "-o", "json"]).expect_code(0).stdout);
        lines.iter().all(|line| line["at"].is_string()).then_some(())
    });
    home.run(["restart", "api"]).expect_code(0);
    let text = home.run(["logs"]).expect_code(0).stdout;
    assert!(text.contains("-- started"), "the daemon's events are inline: {text}");
}

#[test]
fn s48_both_outputs_go_to_one_file_as_they_are() {
    let home = TestHome::new();
    let command = home.troublemaker(
        "api",
        &["--say", "out", "--complain", "err", "--garbage", "--unterminated", "half"],
    );
    home.apply(&format!("components:\n  api:\n    command: {command}\n"));
    home.wait_for("all lines", || {
        let log = String::from_utf8_lossy(&home.log_of("api")).into_owned();
        (log.contains("out\n") && log.contains("err\n")).then_some(())
    });
    let component = home.component("api");
    let path = component["log_file"].as_str().unwrap();
    assert!(path.ends_with("/api.log"), "{path}");
    let folder = std::path::Path::new(path).parent().unwrap();
    let visible = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
    let logs: Vec<_> = visible.filter(|name| name.to_string_lossy().ends_with(".log")).collect();
    assert_eq!(logs, ["api.log"]);
    let mut raw = home.command(["logs", "api", "--no-prefix"]);
    let output = raw.output().unwrap();
    let garbage = b"\xff\xfe \xc3( end";
    assert!(output.stdout.windows(garbage.len()).any(|part| part == garbage), "raw bytes");
    let json = home.run(["logs", "api", "-o", "json"]).expect_code(0);
    let line = json_lines(&json.stdout)
        .into_iter()
        .find(|line| line["text"].as_str().unwrap().contains("garbage"))
        .unwrap();
    assert!(!line["raw"].is_null(), "{line}");
}

#[test]
fn grep_since_and_until() {
    let home = TestHome::new();
    let yaml = says(&home, "api", &["GET /a 200", "GET /b 500", "POST /a 200"]);
    home.apply(&format!("components:\n{yaml}"));
    assert_eq!(plain(&home, &["--grep", "^GET"]), ["GET /a 200", "GET /b 500"]);
    assert_eq!(plain(&home, &["--grep", " 200$", "-n", "1"]), ["POST /a 200"]);
    home.run(["logs", "--grep", "("]).expect_code(2);
    assert_eq!(plain(&home, &["--since", "10m"]).len(), 4);
    home.run(["logs", "--since", "yesterweek"]).expect_code(2);
    // Between two runs there is a time that splits the lines.
    let before = home.pid_of("api");
    home.run(["restart", "api"]).expect_code(0);
    home.wait_replaced("api", before);
    assert_eq!(plain(&home, &["api"]).len(), 8, "S49: restarts append");
    let launched = home.events_of("api", "launched");
    let second = launched[1]["at"].as_str().unwrap();
    home.wait_for("the second run's lines to have a time", || {
        (plain(&home, &["--since", second]).len() == 4).then_some(())
    });
    assert_eq!(plain(&home, &["--until", second]).len(), 4);
    assert!(plain(&home, &["--until", "1h"]).is_empty());
}

#[test]
fn previous_shows_the_run_before() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: 'n=$(cat runs 2>/dev/null || echo 0); echo $((n + 1)) >runs; echo run $((n + 1)); echo up; exec sleep 1000'
    probes: { startup: { log: '^up$', interval: 20ms } }
",
    );
    assert!(plain(&home, &["--previous"]).is_empty());
    home.run(["restart", "api"]).expect_code(0);
    assert_eq!(plain(&home, &["--previous", "api"]), ["run 1", "up"]);
    home.run(["restart", "api"]).expect_code(0);
    assert_eq!(plain(&home, &["--previous", "api"]), ["run 2", "up"]);
}

#[test]
fn s50_lines_and_events_of_all_components_are_merged_by_time() {
    let home = TestHome::new();
    // Each says its line once the other one has said the line before.
    let turn = |mine: &str, after: &str| {
        format!(
            "'while ! [ -e {after} ]; do sleep 0.01; done; echo {mine}; sleep 0.05; touch {mine}; exec sleep 1000'"
        )
    };
    home.write("start", "");
    let mut yaml = "components:\n".to_owned();
    for (name, mine, after) in
        [("zeta", "l1", "start"), ("alpha", "l2", "l1"), ("mid", "l3", "l2"), ("beta", "l4", "l3")]
    {
        let one = format!("  {name}:\n    command: {}\n", turn(mine, after));
        yaml.push_str(&one);
    }
    home.apply(&yaml);
    home.wait_for("the last line", || home.file("l4").exists().then_some(()));
    assert_eq!(plain(&home, &[]), ["l1", "l2", "l3", "l4"]);
    let lines = json_lines(&home.run(["logs", "-o", "json"]).expect_code(0).stdout);
    let times: Vec<&str> = lines.iter().filter_map(|line| line["at"].as_str()).collect();
    assert!(times.is_sorted(), "{times:#?}");
}

#[test]
fn s49_a_follower_goes_on_through_restarts_and_the_death_of_the_engine() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: 'echo begin $$$$; while read line <pipe; do echo said $line; done; exec sleep 1000'
    restart: { backoff: { initial: 10ms } }
    stop: { timeout: 1s }
  other: { command: [sleep, infinity] }
",
    );
    let follower = home.follow(["logs", "-f", "api", "-o", "json"]);
    let first = home.pid_of("api");
    follower.line_with(&format!("begin {first}"));
    home.kill(first);
    home.wait_replaced("api", first);
    let second = home.pid_of("api");
    let mut seen = Vec::new();
    loop {
        let line = follower.next_line().unwrap();
        seen.push(line.clone());
        if line.contains(&format!("begin {second}")) {
            break;
        }
    }
    let event =
        |word: &str| seen.iter().any(|line| line.contains("\"event\":true") && line.contains(word));
    assert!(event("SIGKILL") && event("restarting"), "events are inline: {seen:#?}");
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    home.run(["restart", "api"]).expect_code(0);
    let third = home.wait_replaced("api", second)["pid"].as_u64().unwrap();
    let mut rest = Vec::new();
    loop {
        let line = follower.next_line().unwrap();
        rest.push(line.clone());
        if line.contains(&format!("begin {third}")) {
            break;
        }
    }
    for pid in [u64::from(first), u64::from(second)] {
        let again = rest.iter().filter(|line| line.contains(&format!("begin {pid}"))).count();
        assert_eq!(again, 0, "S41: no line twice: {rest:#?}");
    }
}

#[test]
fn fault_01_s41_a_follower_loses_and_doubles_no_line_while_engines_die() {
    let home = TestHome::new();
    home.apply(&format!(
        "components:\n  api:\n    command: {}\n",
        home.troublemaker("api", &["--tick", "2ms"])
    ));
    let follower = home.follow(["logs", "-f", "api", "--no-prefix", "-n", "0"]);
    let number = |line: &str| line.strip_prefix("tick ").and_then(|text| text.parse::<u64>().ok());
    let next = || loop {
        if let Some(number) = number(&follower.next_line().unwrap()) {
            return number;
        }
    };
    let mut last = next();
    for _ in 0..3 {
        let before = home.kill_engine();
        let after = home.wait_for("a new engine", || {
            home.daemon_pids().filter(|pids| pids.engine != before.engine)
        });
        assert_eq!(after.keeper, before.keeper);
        for _ in 0..300 {
            let number = next();
            assert_eq!(number, last + 1);
            last = number;
        }
    }
}

#[test]
fn the_log_probe_of_a_run_that_is_taken_over_does_not_see_the_run_before() {
    let home = TestHome::new();
    home.apply(
        "components:
  api:
    command: 'n=$(cat runs 2>/dev/null || echo 0); echo $((n + 1)) >runs; [ $$n = 0 ] || while ! [ -e go ]; do sleep 0.01; done; echo up; exec sleep 1000'
    probes: { startup: { log: '^up$', interval: 20ms, failure_threshold: 100000 } }
",
    );
    let first = home.pid_of("api");
    home.run(["restart", "api", "--no-wait"]).expect_code(0);
    home.wait_for("the second run", || {
        let pid = home.try_component("api")?["pid"].as_u64()?;
        (pid != u64::from(first)).then_some(())
    });
    let before = home.kill_engine();
    home.wait_for("a new engine", || {
        home.daemon_pids().filter(|pids| pids.engine != before.engine)
    });
    home.wait_message("api", "startup", "no line matches");
    assert_eq!(home.component("api")["state"], "starting");
    home.write("go", "");
    home.wait_state("api", "running");
}

#[test]
fn a_follower_of_all_hears_newcomers() {
    let home = TestHome::new();
    home.apply(&format!("components:\n{}", says(&home, "api", &["hello"])));
    let follower = home.follow(["logs", "-f"]);
    follower.line_with("hello");
    let yaml = says(&home, "api", &["hello"]) + &says(&home, "late", &["from the newcomer"]);
    home.manifest(&format!("components:\n{yaml}"));
    let line = follower.line_with("from the newcomer");
    assert!(line.starts_with("late"), "{line}");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = TestHome::new();
    let flood = home.troublemaker("api", &["--flood", "2"]);
    home.apply(&format!("components:\n  api:\n    command: {flood}\n"));
    let mut head = std::process::Command::new("/bin/sh");
    head.arg("-c").arg("\"$0\" logs -n 100000 | head -n 3; echo done >&2");
    head.arg(home.command(["x"]).get_program());
    let template = home.command(["x"]);
    head.env_clear().current_dir(home.project());
    head.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(user) = home.user() {
        user.run(&mut head);
    }
    let output = home.run_command(head).expect_code(0);
    assert_eq!(output.stdout.lines().count(), 3, "{output:#?}");
    assert_eq!(output.stderr, "done\n", "{output:#?}");
}
