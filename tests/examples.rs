//! The example programs do what their first lines say, run as they are, without stigmer.
//!
//! `cargo test` builds the examples before it runs this; `cargo test --test examples` alone does
//! not, so run `cargo build --examples` before it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::command::Running;
use support::ports::{Port, free_port};
use support::processes::Process;
use support::programs::Programs;
use support::wait::{patience, poll};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn example<I: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(Programs::built().example(name));
    command.args(arguments);
    command
}

fn start(name: &str, arguments: &[&str]) -> Running {
    Running::start(example(name, arguments))
}

/// Status line and body of a GET.
fn get(port: &Port, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The health of a service, or the code of the failure.
fn health(port: &Port, service: &str, timeout: Duration) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let channel = endpoint.connect_lazy();
        let request = HealthCheckRequest { service: service.to_owned() };
        match tokio::time::timeout(timeout, HealthClient::new(channel).check(request)).await {
            Ok(Ok(answer)) => answer.get_ref().status().as_str_name().to_owned(),
            Ok(Err(status)) => format!("{:?}", status.code()),
            Err(_) => "timeout".to_owned(),
        }
    })
}

#[test]
fn the_server_tells_its_health_and_changes_it_at_a_signal() {
    let port = free_port();
    let mut server = start("stigmer-server", &["--port", &port.to_string(), "--service", "a.B"]);
    server.line_with("listening");
    server.line_with("a.B is now Serving");
    assert_eq!(health(&port, "a.B", patience()), "SERVING");
    assert_eq!(health(&port, "", patience()), "SERVING");
    assert_eq!(health(&port, "unheard.Of", patience()), "NotFound");
    server.signal(Signal::USR1);
    server.line_with("a.B is now NotServing");
    assert_eq!(health(&port, "a.B", patience()), "NOT_SERVING");
    assert_eq!(health(&port, "", patience()), "SERVING");
    server.signal(Signal::TERM);
    server.line_with("stopped in good order");
    assert_eq!(server.wait(), (Some(0), None));
}

#[test]
fn a_server_that_hangs_accepts_and_never_answers() {
    let port = free_port();
    let server = start("stigmer-server", &["--port", &port.to_string()]);
    server.line_with("is now Serving");
    server.signal(Signal::USR2);
    server.line_with("hanging");
    TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).unwrap();
    assert_eq!(health(&port, "", Duration::from_millis(300)), "timeout");
}

#[test]
fn a_server_whose_port_is_taken_names_it() {
    let port = free_port();
    let first = start("stigmer-server", &["--port", &port.to_string()]);
    first.line_with("listening");
    let output = example("stigmer-server", ["--port", &port.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{message}");
}

#[test]
fn the_worker_works_while_its_server_is_well() {
    let port = free_port();
    let scratch = tempfile::tempdir().unwrap();
    let heartbeat = scratch.path().join("heartbeat");
    let server_url = format!("http://127.0.0.1:{port}");
    let mut worker = Running::start({
        let mut command = example("workflow-runner", ["--every", "20ms", "--heartbeat"]);
        command.arg(&heartbeat).env("RUNNER_SERVER", server_url);
        command
    });
    worker.line_with("worker ready");
    assert!(heartbeat.exists(), "it is looked at from now on");
    worker.line_with("waiting: the server does not answer");
    let mut server = start("stigmer-server", &["--port", &port.to_string()]);
    worker.line_with("step 3 done");
    server.signal(Signal::USR1);
    worker.line_with("waiting: the server is NOT_SERVING");
    worker.signal(Signal::TERM);
    worker.line_with("stopped in good order");
    assert_eq!(worker.wait(), (Some(0), None));
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), (Some(0), None));
}

#[test]
fn the_worker_crashes_and_hangs_as_told() {
    let mut by_flag = start("workflow-runner", &["--crash-after", "10ms"]);
    by_flag.line_with("crashing, as told by --crash-after");
    assert_eq!(by_flag.wait(), (Some(1), None));

    let mut by_signal = start("workflow-runner", &[]);
    by_signal.line_with("worker ready");
    by_signal.signal(Signal::USR1);
    by_signal.line_with("crashing, as told by a signal");
    assert_eq!(by_signal.wait(), (Some(1), None));

    let by_environment = Running::start({
        let mut command = example::<&str>("workflow-runner", []);
        command.env("RUNNER_HANG_AFTER", "10ms");
        command
    });
    by_environment.line_with("hanging, as told by --hang-after");
    assert!(Process::open(by_environment.pid()).is_some());
}

#[test]
fn the_web_service_is_alive_also_when_it_is_not_ready() {
    let port = free_port();
    let mut web = start("web", &["--port", &port.to_string()]);
    web.line_with("listening");
    assert_eq!(get(&port, "/readyz").0, "HTTP/1.1 200 OK");
    web.signal(Signal::USR1);
    web.line_with("ready: false");
    assert_eq!(get(&port, "/readyz").0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(get(&port, "/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(get(&port, "/elsewhere").0, "HTTP/1.1 404 Not Found");
    assert!(get(&port, "/").1.contains(&format!("process {}", web.pid())));
    web.line_with("GET / 200");
    web.signal(Signal::TERM);
    assert_eq!(web.wait(), (Some(0), None));
}

#[test]
fn the_web_service_stands_in_for_others_with_ports_and_pages_of_its_own() {
    let (one, other) = (free_port(), free_port());
    let ports = [one.to_string(), other.to_string()];
    let page = "/api/tags={\"models\":[]}";
    let web = start("web", &["--port", &ports[0], "--port", &ports[1], "--page", page]);
    web.line_with(&format!("listening on http://127.0.0.1:{other}/"));
    for port in [&one, &other] {
        let (head, body) = get(port, "/api/tags");
        assert!(head.contains("200"), "{head}");
        assert_eq!(body, "{\"models\":[]}\n");
    }
    assert!(get(&other, "/api").0.contains("404"));
    let output = example("web", ["--page", "api"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("PATH=TEXT"), "{message}");
}

#[test]
fn the_troublemaker_ends_as_told() {
    let end = |arguments: &[&str]| start("troublemaker", arguments).wait();
    assert_eq!(end(&["--exit-after", "0s"]), (Some(0), None));
    assert_eq!(end(&["--exit-after", "1ms", "--exit-code", "42"]), (Some(42), None));
    assert_eq!(end(&["--ready-after", "1h", "--exit-after", "1ms"]), (Some(0), None));
    for (name, number) in [("KILL", 9), ("SIGSEGV", 11), ("abrt", 6), ("TERM", 15)] {
        assert_eq!(end(&["--exit-after", "0s", "--die-by", name]), (None, Some(number)));
    }
}

#[test]
fn the_troublemaker_answers_sigterm_as_told() {
    let mut default = start("troublemaker", &["--say-ready", "ready"]);
    default.line_with("ready");
    default.signal(Signal::TERM);
    assert_eq!(default.wait(), (None, Some(15)));

    let mut exits = start(
        "troublemaker",
        &["--say-ready", "ready", "--on-term", "exit", "--term-exit-code", "7"],
    );
    exits.line_with("ready");
    exits.signal(Signal::TERM);
    exits.line_with("got SIGTERM");
    assert_eq!(exits.wait(), (Some(7), None));

    let mut ignores = start("troublemaker", &["--say-ready", "ready", "--on-term", "ignore"]);
    ignores.line_with("ready");
    ignores.signal(Signal::TERM);
    ignores.line_with("got SIGTERM");
    assert!(Process::open(ignores.pid()).is_some());
    ignores.signal(Signal::KILL);
    assert_eq!(ignores.wait(), (None, Some(9)));
}

#[test]
fn the_troublemaker_writes_every_byte_that_it_was_told_to() {
    let run = |arguments: &[&str]| example("troublemaker", arguments).output().unwrap().stdout;
    let flood = run(&["--flood", "1", "--exit-after", "0s"]);
    let lines: Vec<&[u8]> = flood.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 10_485);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line.len(), 100);
        assert!(line.starts_with(format!("line {number:012} x").as_bytes()));
    }
    assert_eq!(run(&["--long-line", "2", "--exit-after", "0s"]), vec![b'y'; 2 * 1024 * 1024]);
    let garbage = run(&["--garbage", "--exit-after", "0s"]);
    assert!(garbage.contains(&0) && std::str::from_utf8(&garbage).is_err());
    assert_eq!(
        run(&["--say", "a b", "--unterminated", "no end", "--exit-after", "0s"]),
        b"a b\nno end"
    );
    let ticks = start("troublemaker", &["--tick", "1ms"]);
    ticks.line_with("tick 3");
}

#[test]
fn the_troublemaker_reports_what_it_was_given() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("report.json");
    let mut command = example("troublemaker", ["--exit-after", "0s", "--report"]);
    command.arg(&place).env_clear().env("COLOUR", "blue").current_dir("/").stdin(Stdio::null());
    assert!(command.status().unwrap().success());
    let report: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    assert_eq!(report["environment"], serde_json::json!({ "COLOUR": "blue" }));
    assert_eq!(report["working_dir"], "/");
    assert_eq!(report["descriptors"]["0"], "/dev/null");
    assert_eq!(report["uid"], rustix::process::getuid().as_raw());
    assert_eq!(report["umask"].as_str().unwrap().len(), 4);
    assert!(report["limits"]["nofile"]["soft"].is_u64());
    assert!(report["nice"].is_i64());
    assert_eq!(report["arguments"][1], "--exit-after");
}

#[test]
fn a_grandchild_survives_and_holds_what_it_took() {
    let scratch = tempfile::tempdir().unwrap();
    let port = free_port();
    let report = scratch.path().join("grandchild.json");
    let arguments =
        format!("--grandchild=--tcp {port} --on-term ignore --report {}", report.display());
    let mut parent = start("troublemaker", &[&arguments, "--exit-after", "0s"]);
    assert_eq!(parent.wait(), (Some(0), None));
    let report = poll(patience(), || fs::read(&report).ok()).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let grandchild = Process::open(report["pid"].as_u64().unwrap().try_into().unwrap()).unwrap();
    let connected =
        poll(patience(), || TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).ok());
    grandchild.signal(Signal::KILL);
    assert!(grandchild.wait_gone(patience()));
    assert!(connected.is_some());
    assert_ne!(report["session"], parent.pid());
    assert_ne!(report["session"], report["pid"], "it is no leader, so it is forked twice");
}

#[test]
fn health_changes_with_the_file_of_answers() {
    let scratch = tempfile::tempdir().unwrap();
    let answers = scratch.path().join("answers");
    let script = |text: &str| {
        let draft = scratch.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, &answers).unwrap();
    };
    script("# well\n/healthz 200 fine\n");
    let (http, grpc) = (free_port(), free_port());
    let (http_text, grpc_text) = (http.to_string(), grpc.to_string());
    let fixture = start(
        "troublemaker",
        &[
            "--http",
            &http_text,
            "--grpc",
            &grpc_text,
            "--say-ready",
            "ready",
            "--answers",
            path_text(&answers),
        ],
    );
    fixture.line_with("ready");
    assert_eq!(get(&http, "/healthz"), ("HTTP/1.1 200 OK".to_owned(), "fine\n".to_owned()));
    assert_eq!(health(&grpc, "a.B", patience()), "SERVING");

    script(
        "/healthz 503 ill\n/nonsense nonsense\n/typo fine\n* redirect /x\ngrpc:a.B NOT_SERVING\ngrpc:c not_found\ngrpc:d hang\ngrpc:e WELL\n",
    );
    assert_eq!(get(&http, "/healthz").1, "ill\n");
    assert_eq!(get(&http, "/else").0, "HTTP/1.1 302 Found");
    assert_eq!(get(&http, "/typo").0, "HTTP/1.1 500 Internal Server Error");
    assert_eq!(health(&grpc, "a.B", patience()), "NOT_SERVING");
    assert_eq!(health(&grpc, "", patience()), "SERVING");
    assert_eq!(health(&grpc, "c", patience()), "NotFound");
    assert_eq!(health(&grpc, "d", Duration::from_millis(300)), "timeout");
    assert_eq!(health(&grpc, "e", patience()), "Internal");

    fs::remove_file(&answers).unwrap();
    assert_eq!(get(&http, "/healthz").0, "HTTP/1.1 500 Internal Server Error");
    assert_eq!(health(&grpc, "", patience()), "Internal");
}

#[test]
fn the_gate_closes_and_opens_every_listener() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("socket");
    let port = free_port();
    let fixture = start(
        "troublemaker",
        &["--tcp", &port.to_string(), "--unix", path_text(&socket), "--say-ready", "ready"],
    );
    fixture.line_with("ready");
    let tcp = || TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_ok();
    let unix = || UnixStream::connect(&socket).is_ok();
    assert!(tcp() && unix());
    fixture.signal(Signal::USR1);
    poll(patience(), || (!tcp() && !unix()).then_some(())).unwrap();
    fixture.signal(Signal::USR2);
    poll(patience(), || (tcp() && unix()).then_some(())).unwrap();
}

#[test]
fn an_output_that_is_closed_ends_nothing() {
    let closes = start("troublemaker", &["--say", "last words", "--close-stdout"]);
    assert_eq!(closes.next_line().as_deref(), Some("last words"));
    assert_eq!(closes.next_line(), None);
    assert!(Process::open(closes.pid()).is_some());
}

#[test]
fn the_idle_program_writes_down_when_it_began() {
    let scratch = tempfile::tempdir().unwrap();
    let stamps = scratch.path().join("stamps");
    let idle = start("idle", &[path_text(&stamps)]);
    let line =
        poll(patience(), || fs::read_to_string(&stamps).ok().filter(|text| text.ends_with('\n')))
            .unwrap();
    let (pid, nanos) = line.trim_end().split_once(' ').unwrap();
    assert_eq!(pid, idle.pid().to_string());
    assert!(nanos.parse::<u64>().unwrap() > 0);
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
