//! Every kind of probe against a real program, passing and failing, with its message in the status
//! (S32). Each serves as a readiness probe where it can: that may fail for as long as one likes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

use support::home::TestHome;
use support::look::signal;
use support::ports::free_port;

/// A component `it` with one probe, which is asked often and believed at once.
fn manifest(command: &str, role: &str, check: &str) -> String {
    format!(
        "project: kinds
components:
  it:
    command: {command}
    stop: {{ timeout: 1s }}
    probes:
      {role}: {{ {check}, interval: 50ms, timeout: 2s, failure_threshold: 1, success_threshold: 1 }}
"
    )
}

/// Starts `it` with a readiness probe; waits for nothing.
fn start(home: &TestHome, command: &str, check: &str) {
    home.manifest(&manifest(command, "readiness", check));
    home.run(["apply", "--no-wait"]).expect_code(0);
}

/// Waits for a failure of the readiness probe with this message; it must not have cost a restart.
#[track_caller]
fn fails(home: &TestHome, words: &str) -> Value {
    let probe = home.wait_message("it", "readiness", words);
    assert_eq!(probe["result"], "failure");
    home.wait_for("it not to be ready", || {
        home.try_component("it").filter(|it| it["ready"] == false && it["state"] == "running")
    });
    assert_eq!(home.component("it")["restarts"]["total"], 0);
    probe
}

#[track_caller]
fn passes(home: &TestHome, check: &str) {
    home.wait_ready("it");
    let probe = home.wait_probe("it", "readiness", "success");
    assert_eq!(probe["message"], Value::Null, "S13: {probe}");
    assert_eq!(probe["check"], check);
}

#[test]
fn s32_process() {
    let home = TestHome::new();
    start(&home, "[sleep, infinity]", "process: {}");
    passes(&home, "process");
    // A process that is gone is an exit, and no probe is asked about it any more: what fails can
    // be seen only of a process that is not stigmer's own.
    let pid = home.pid_of("it");
    signal(pid, Signal::STOP);
    let before = home.component("it")["probes"]["readiness"]["consecutive"].as_u64().unwrap();
    home.wait_for("more results of a process that is held", || {
        let probe = home.try_component("it")?["probes"]["readiness"].clone();
        (probe["result"] == "success" && probe["consecutive"].as_u64()? > before + 1).then_some(())
    });
    signal(pid, Signal::CONT);
}

#[test]
fn s32_min_uptime() {
    let home = TestHome::new();
    start(&home, "[sleep, infinity]", "min_uptime: 1h");
    let probe = fails(&home, "up for ");
    assert!(probe["message"].as_str().unwrap().ends_with(" of 1h 0m"), "{probe}");
    start(&home, "[sleep, infinity]", "min_uptime: 100ms");
    passes(&home, "min_uptime 100ms");
}

#[test]
fn s32_exec_with_its_last_line_and_the_environment_and_folder_of_the_component() {
    let home = TestHome::new();
    let check =
        "exec: 'echo \"$STIGMER_COMPONENT\"; test -e here || { echo nothing is here; exit 3; }'";
    start(&home, "[sleep, infinity]", check);
    fails(&home, "exit 3: nothing is here");
    home.write("here", "");
    passes(
        &home,
        "exec echo \"$STIGMER_COMPONENT\"; test -e here || { echo nothing is here; exit 3; }",
    );
    start(&home, "[sleep, infinity]", "exec: 'echo I am $STIGMER_COMPONENT in $PWD; exit 1'");
    let words = format!("exit 1: I am it in {}", home.project().display());
    fails(&home, &words);
    start(&home, "[sleep, infinity]", "exec: [\"no such program\"]");
    fails(&home, "no such program");
    start(&home, "[sleep, infinity]", "exec: 'kill -9 $$$$'");
    fails(&home, "SIGKILL");
}

#[test]
fn s32_http() {
    let home = TestHome::new();
    let port = free_port();
    home.write("answers", "/healthz 200 all is well\n");
    let flags = ["--http", &port.to_string(), "--answers", "answers"];
    let command = home.troublemaker("it", &flags);
    start(&home, &command, &format!("http: {{ port: {port}, path: /healthz, body: '^all' }}"));
    passes(&home, &format!("http GET 127.0.0.1:{port}/healthz"));
    home.write("answers", "/healthz 503 too much\n");
    fails(&home, "GET /healthz 503");
    home.write("answers", "/healthz 200 something else\n");
    fails(&home, "GET /healthz 200, but the body does not match /^all/");
    home.write("answers", "/healthz nonsense\n");
    fails(&home, "GET /healthz: not an HTTP answer");
    let pid = home.pid_of("it");
    signal(pid, Signal::USR1);
    fails(&home, &format!("connection refused (127.0.0.1:{port})"));
    signal(pid, Signal::USR2);
    home.write("answers", "/healthz 200 all is well\n");
    home.wait_ready("it");
    home.write("answers", "* redirect /elsewhere\n");
    start(&home, &command, &format!("http: {{ port: {port}, status: [200] }}"));
    fails(&home, "GET / 302");
    start(&home, &command, &format!("http: {{ port: {port} }}"));
    home.wait_ready("it");
    assert_eq!(home.births("it").len(), 1, "a probe is changed without a restart");
}

#[test]
fn s32_http_that_hangs_drips_or_never_ends() {
    let home = TestHome::new();
    let port = free_port();
    home.write("answers", "/slow hang\n/drip drip\n/endless endless\n");
    let command = home.troublemaker("it", &["--http", &port.to_string(), "--answers", "answers"]);
    let with = |path: &str| {
        manifest(&command, "readiness", &format!("http: {{ port: {port}, path: {path} }}"))
            .replace("timeout: 2s", "timeout: 200ms")
    };
    home.manifest(&with("/slow"));
    home.run(["apply", "--no-wait"]).expect_code(0);
    fails(&home, "no answer within 200ms");
    home.manifest(&with("/endless"));
    home.wait_ready("it");
    home.manifest(&with("/drip"));
    fails(&home, "no answer within 200ms");
}

/// A server with a certificate that is expired, self-signed and for another name; it lives as long as
/// the test.
fn serve_tls() -> u16 {
    let certificate = CertificateDer::from(&include_bytes!("probes/expired-certificate.der")[..]);
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("probes/expired-key.der")[..]);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from(key))
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            // A client that goes away in the middle is its own affair.
            std::thread::spawn(move || answer_tls(stream, config));
        }
    });
    port
}

fn answer_tls(mut stream: TcpStream, config: Arc<ServerConfig>) -> Option<()> {
    let mut connection = ServerConnection::new(config).ok()?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    let mut request = [0; 1024];
    let length = tls.read(&mut request).ok()?;
    let status = if request[..length].starts_with(b"GET /sick") { 503 } else { 200 };
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    tls.write_all(answer.as_bytes()).ok()?;
    connection.send_close_notify();
    connection.complete_io(&mut stream).ok().map(drop)
}

/// A server that speaks no TLS; it lives as long as the test.
fn serve_nonsense() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    port
}

#[test]
fn s32_https_without_looking_at_the_certificate() {
    let home = TestHome::new();
    let (tls, plain) = (serve_tls(), free_port());
    let command = home.troublemaker("it", &["--http", &plain.to_string()]);
    start(&home, &command, &format!("https: {{ port: {tls}, path: /well }}"));
    passes(&home, &format!("https GET 127.0.0.1:{tls}/well"));
    start(&home, &command, &format!("https: {{ port: {tls}, path: /sick }}"));
    fails(&home, "GET /sick 503");
    start(&home, &command, &format!("https: {{ port: {} }}", serve_nonsense()));
    fails(&home, "TLS handshake failed");
}

#[test]
fn s32_tcp() {
    let home = TestHome::new();
    let port = free_port();
    let command = home.troublemaker("it", &["--tcp", &port.to_string()]);
    start(&home, &command, &format!("tcp: {{ port: {port} }}"));
    passes(&home, &format!("tcp 127.0.0.1:{port}"));
    let pid = home.pid_of("it");
    signal(pid, Signal::USR1);
    fails(&home, &format!("connection refused (127.0.0.1:{port})"));
    signal(pid, Signal::USR2);
    passes(&home, &format!("tcp 127.0.0.1:{port}"));
}

#[test]
fn s32_unix() {
    let home = TestHome::new();
    let command = home.troublemaker("it", &["--unix", "it.sock"]);
    let path = home.file("it.sock");
    start(&home, &command, &format!("unix: {}", path.display()));
    passes(&home, &format!("unix {}", path.display()));
    let pid = home.pid_of("it");
    signal(pid, Signal::USR1);
    fails(&home, &format!("connection refused ({})", path.display()));
    std::fs::remove_file(&path).unwrap();
    fails(&home, &format!("no such socket ({})", path.display()));
    signal(pid, Signal::USR2);
    passes(&home, &format!("unix {}", path.display()));
}

#[test]
fn s32_grpc_with_a_service() {
    let home = TestHome::new();
    let port = free_port();
    home.write("answers", "grpc:shop.Api SERVING\n");
    let command = home.troublemaker("it", &["--grpc", &port.to_string(), "--answers", "answers"]);
    start(&home, &command, &format!("grpc: {{ port: {port}, service: shop.Api }}"));
    passes(&home, &format!("grpc 127.0.0.1:{port} shop.Api"));
    home.write("answers", "grpc:shop.Api NOT_SERVING\ngrpc: SERVING\n");
    fails(&home, "shop.Api is NOT_SERVING");
    home.write("answers", "grpc:shop.Api not_found\n");
    fails(&home, "unknown service shop.Api");
    signal(home.pid_of("it"), Signal::USR1);
    fails(&home, &format!("connection refused (127.0.0.1:{port})"));
    signal(home.pid_of("it"), Signal::USR2);
    home.write("answers", "grpc:shop.Api NOT_SERVING\ngrpc: SERVING\n");
    start(&home, &command, &format!("grpc: {{ port: {port} }}"));
    passes(&home, &format!("grpc 127.0.0.1:{port}"));
    home.write("answers", "grpc: hang\n");
    fails(&home, "no answer within 2s");
}

#[test]
fn s32_log() {
    let home = TestHome::new();
    let command = "while [ ! -e go ]; do sleep 0.02; done; echo open for business; exec sleep 1000";
    start(&home, command, "log: '^open for'");
    fails(&home, "no line matches /^open for/ yet");
    home.write("go", "");
    passes(&home, "log /^open for/");
}

#[test]
fn s32_file_with_content_and_age() {
    let home = TestHome::new();
    let path = home.file("beat");
    let shown = path.display();
    start(&home, "[sleep, infinity]", &format!("file: {{ path: {shown}, max_age: 10m }}"));
    fails(&home, &format!("no such file ({shown})"));
    home.write("beat", "state: well\n");
    passes(&home, &format!("file {shown} at most 10m 0s old"));
    let old = SystemTime::now() - Duration::from_secs(2 * 3_600);
    File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
    fails(&home, &format!("{shown} is 2h 0m old, at most 10m 0s is allowed"));
    start(&home, "[sleep, infinity]", "file: { path: beat, contains: 'state: sick' }");
    fails(&home, "beat does not contain /state: sick/");
    home.write("beat", "state: sick\n");
    home.wait_ready("it");
}

#[test]
fn s32_all_fails_with_its_first_failure() {
    let home = TestHome::new();
    let check = "all: [ { process: {} }, { exec: 'test -e one' }, { exec: 'test -e two' } ]";
    start(&home, "[sleep, infinity]", check);
    fails(&home, "exec test -e one: exit 1");
    home.write("one", "");
    fails(&home, "exec test -e two: exit 1");
    home.write("two", "");
    passes(&home, "all of: process, exec test -e one, exec test -e two");
}

/// Writes a program that anybody may execute.
fn program(home: &TestHome, path: &str, script: &str) {
    home.executable(path, format!("#!/bin/sh\n{script}\n"));
}

#[test]
fn s37_a_program_on_the_path_or_in_a_declared_folder_is_a_kind() {
    let home = TestHome::new();
    program(
        &home,
        "../bin/stigmer-probe-lamp",
        "echo \"$1\" >asked; test -e lit && echo fine || exit 4",
    );
    start(&home, "[sleep, infinity]", "lamp: { room: 'the $$ hall', watts: 60 }");
    fails(&home, "exit 4");
    let asked: Value = serde_json::from_slice(&std::fs::read(home.file("asked")).unwrap()).unwrap();
    let component = home.component("it");
    assert_eq!(asked["version"], 1);
    assert_eq!(asked["kind"], "lamp");
    assert_eq!(asked["config"], serde_json::json!({ "room": "the $ hall", "watts": 60 }));
    assert_eq!(asked["pid"], component["pid"]);
    assert_eq!(asked["log_file"], component["log_file"]);
    home.write("lit", "");
    let lamp = home.root().join("bin/stigmer-probe-lamp");
    passes(&home, &format!("lamp ({})", lamp.display()));

    // A declared folder outranks the PATH, and the program's own words are shown.
    std::fs::create_dir(home.file("probes")).unwrap();
    home.user().into_iter().for_each(|user| user.own(&home.file("probes")));
    let says = "echo '{\"ok\": false, \"message\": \"the bulb is broken\"}'";
    program(&home, "probes/stigmer-probe-lamp", says);
    let yaml = manifest("[sleep, infinity]", "readiness", "all: [ { process: {} }, { lamp: {} } ]");
    home.manifest(&format!("probe_path: probes\n{yaml}"));
    home.run(["apply", "--no-wait"]).expect_code(0);
    fails(&home, "the bulb is broken");
}
