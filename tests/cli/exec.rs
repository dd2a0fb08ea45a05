//! `exec`: what the daemon is asked, what the command is given, and how it ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use stigmer::api::v1;
use tonic::{Code, Status};

use crate::executable::write_executable;
use crate::fake::{Answers, Scene};

/// Where a process component of whoever runs the tests runs its commands.
fn place(env: &[(&str, &str)]) -> v1::ProcessPlace {
    let own = nix::unistd::getgroups().unwrap();
    v1::ProcessPlace {
        env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        working_dir: b"/".to_vec(),
        user: Some(v1::ProcessUser {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: own.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        }),
        ..v1::ProcessPlace::default()
    }
}

fn beside(process: v1::ProcessPlace) -> Scene {
    let exec = v1::ExecResponse { process: Some(process), ..v1::ExecResponse::default() };
    Scene::with(Answers { exec, ..Answers::default() })
}

const PATH: (&str, &str) = ("PATH", "/usr/bin:/bin");

#[test]
fn the_command_has_the_given_environment_and_nothing_of_ours() {
    let scene = beside(place(&[PATH, ("A", "component"), ("B", "component")]));
    let mut command = scene.command(&["exec", "-e", "B=option", "-e", "HERE", "web", "env"]);
    command.env("HERE", "shell").env("TERM", "vt100").env("LEAKS", "yes");
    let said = Scene::finish(command);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let found: BTreeMap<_, _> =
        said.stdout.lines().map(|line| line.split_once('=').unwrap()).collect();
    let expected = [("A", "component"), ("B", "option"), ("HERE", "shell"), PATH];
    assert_eq!(found, expected.into());
    let asked = scene.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].starts_with("ExecRequest") && asked[1].contains(r#"names: ["web"]"#));
}

#[test]
fn options_after_the_command_are_the_command_s() {
    let scene = beside(place(&[PATH]));
    for arguments in [
        &["exec", "web", "echo", "-e", "--user", "-T", "--", "--help"][..],
        &["exec", "web", "--", "echo", "-e", "--user", "-T", "--", "--help"],
    ] {
        let said = scene.run(arguments);
        assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{arguments:?}");
        // Programs of that name differ in what they make of `-e`.
        assert!(said.stdout.trim_start_matches("-e ").starts_with("--user -T -- --help"));
    }
    let said = scene.run(&["exec", "web", "--no-such-option", "echo"]);
    assert_eq!(said.code, Some(2));
}

#[test]
fn it_runs_in_the_folder_with_the_mask_and_the_limits() {
    let limit = v1::ProcessLimit { name: "nofile".into(), soft: Some(55), hard: Some(60) };
    let scene = beside(v1::ProcessPlace {
        working_dir: b"/usr".to_vec(),
        umask: Some(0o027),
        nice: Some(3),
        rlimits: vec![limit],
        ..place(&[PATH])
    });
    let script = "pwd; umask; nice; ulimit -Sn; ulimit -Hn";
    let said = scene.run(&["exec", "web", "sh", "-c", script]);
    assert_eq!((said.stdout.as_str(), &*said.stderr), ("/usr\n0027\n3\n55\n60\n", ""));
    let said = scene.run(&["exec", "-w", "bin", "web", "sh", "-c", "pwd"]);
    assert_eq!(said.stdout, "/usr/bin\n");
    let said = scene.run(&["exec", "-w", "/", "web", "sh", "-c", "pwd"]);
    assert_eq!(said.stdout, "/\n");
    // A program with a slash is looked up from there.
    let said = scene.run(&["exec", "-w", "/usr/bin", "web", "./env"]);
    assert_eq!(said.code, Some(0));
}

#[test]
fn streams_and_exit_code_are_those_of_the_command() {
    let scene = beside(place(&[PATH]));
    let mut command = scene.command(&["exec", "web", "sh", "-c", "cat; echo err >&2; exit 7"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in\0\xff").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"in\0\xff"[..], &b"err\n"[..])
    );
}

/// Of nothing but signals that are blocked or ignored may a trace be left of us.
#[test]
fn signals_are_as_a_shell_leaves_them() {
    let scene = beside(place(&[PATH]));
    let said = scene.run(&["exec", "web", "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]);
    let blocked = said.stdout.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    assert_eq!(u64::from_str_radix(blocked.trim(), 16).unwrap(), 0, "{}", said.stdout);
    let ignored = said.stdout.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let pipe = 1 << (libc::SIGPIPE - 1);
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & pipe, 0, "{}", said.stdout);
}

#[test]
fn what_cannot_be_executed_ends_as_in_a_shell() {
    let scene = beside(place(&[PATH]));
    let folder = scene.folder();
    let file = folder.join("script");
    write_executable(&file, "#!/no/such/interpreter\n", 0o644);
    let file = file.to_str().unwrap();
    for (arguments, code, words) in [
        (&["exec", "web", "no-such-program"][..], 127, "no-such-program was not found"),
        (&["exec", "web", "/no/such/program"], 127, "/no/such/program does not exist"),
        (&["exec", "web", ""], 127, "not found"),
        (&["exec", "web", file], 126, "no execute bit"),
        (&["exec", "web", "/"], 126, "/"),
        (&["exec", "-w", "/no/such/folder", "web", "env"], 126, "/no/such/folder does not exist"),
    ] {
        let said = scene.run(arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stdout, "");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(file, mode).unwrap();
    let said = scene.run(&["exec", "web", file]);
    assert_eq!(said.code, Some(126), "{}", said.stderr);
    assert!(said.stderr.contains("interpreter /no/such/interpreter"), "{}", said.stderr);
}

#[test]
fn without_a_command_it_is_the_shell_of_the_environment() {
    let scene = beside(place(&[PATH, ("SHELL", "/usr/bin/env")]));
    let said = scene.run(&["exec", "web"]);
    assert!(said.stdout.contains("SHELL=/usr/bin/env\n"), "{}", said.stdout);
    let scene = beside(place(&[PATH, ("SHELL", "/usr/sbin/nologin")]));
    let mut command = scene.command(&["exec", "web"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"echo $((6 * 7)); exit 3\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b"42\n"[..]));
}

#[test]
fn refusals_have_exit_codes_of_their_own() {
    for (code, exit) in [
        (Code::NotFound, 4),
        (Code::InvalidArgument, 2),
        (Code::FailedPrecondition, 3),
        (Code::Aborted, 1),
    ] {
        let exec_refusal = Some(Status::new(code, "the reason"));
        let scene = Scene::with(Answers { exec_refusal, ..Answers::default() });
        let said = scene.run(&["exec", "web", "env"]);
        assert_eq!((said.code, &*said.stderr), (Some(exit), "error: the reason\n"), "{code:?}");
    }
    let said = Scene::empty().run(&["exec", "web", "env"]);
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.contains("no daemon is running"), "{}", said.stderr);
}

#[test]
fn usage_is_checked_before_anything_is_asked() {
    let scene = beside(place(&[PATH]));
    for (arguments, words) in [
        (&["exec"][..], "<NAME>"),
        (&["exec", "-e", "=x", "web", "env"], "a variable needs a name"),
        (&["exec", "-e", "UNSET", "web", "env"], "write UNSET=VALUE"),
        (&["exec", "-u", "", "web", "env"], "--user needs a user"),
        (&["exec", "-u", ":staff", "web", "env"], "--user needs a user"),
    ] {
        let said = scene.run(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
    }
    assert_eq!(scene.asked(), Vec::<String>::new());
    let said = scene.run(&["exec", "-u", "www:staff", "web", "true"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(scene.asked()[1].contains(r#"user: "www:staff""#), "{:?}", scene.asked());
}

#[test]
fn an_engine_that_is_not_there_is_told_with_what_to_do() {
    let container = v1::ContainerPlace {
        id: "0123456789abcdef".into(),
        engine: "unix:///no/such/engine.sock".into(),
        certificates: String::new(),
    };
    let exec = v1::ExecResponse { container: Some(container), ..v1::ExecResponse::default() };
    let scene = Scene::with(Answers { exec, ..Answers::default() });
    let said = scene.run(&["exec", "db", "env"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    for words in ["the container of db", "/no/such/engine.sock", "DOCKER_HOST"] {
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }
    // A folder in a container is named from its root.
    let said = scene.run(&["exec", "-w", "tmp", "db", "env"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("/tmp"), "{}", said.stderr);
}

#[test]
fn a_daemon_that_does_not_know_the_call_is_older() {
    let exec_refusal = Some(Status::unimplemented("what?"));
    let scene = Scene::with(Answers { exec_refusal, ..Answers::default() });
    let said = scene.run(&["exec", "web", "env"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("older"), "{}", said.stderr);
}
