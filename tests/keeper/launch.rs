//! What a program finds when it starts, and what is said when it cannot.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use stigmer::keeper::explain::{Asked, explain};
use stigmer::keeper::wire::{
    Containment, Credentials, Detail, FromKeeper, HandedDown, LogTarget, ToKeeper,
};
use stigmer::model::spec::{LimitSpec, Rlimit};
use stigmer::model::{ExitStatus, LaunchStage, Retry, RunId};

use crate::bench::{Bench, code, until};
use crate::executable::write_executable;

/// Runs a program to its end and returns what it wrote.
fn output(bench: &mut Bench, spawn: stigmer::keeper::wire::Spawn) -> String {
    let run = spawn.run;
    let _ = fs::remove_file(bench.path("log"));
    bench.spawn(spawn);
    let exited = bench.exited(run);
    assert_eq!(code(&exited), ExitStatus::Code(0), "{}", bench.log());
    bench.log()
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn codes_and_signals_are_told_apart() {
    let mut bench = Bench::new();
    for (line, expected) in [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 7", ExitStatus::Code(7)),
        ("exit 127", ExitStatus::Code(127)),
        ("kill -9 $$", ExitStatus::Signal(9)),
        ("kill -TERM $$", ExitStatus::Signal(15)),
        ("kill -PIPE $$", ExitStatus::Signal(13)),
    ] {
        let spawned = bench.spawn_shell(line);
        let exited = bench.exited(spawned.run);
        assert_eq!(code(&exited), expected, "{line}");
        assert!(exited.empty && !exited.exit.oom);
        assert!(exited.at >= spawned.at);
        assert_eq!(bench.state(spawned.run).pid, spawned.pid);
        bench.send(&ToKeeper::Ack { run: spawned.run });
        assert!(bench.list().is_empty());
    }
}

/// From now on this thread, and whatever it starts, is told that there is no `clone3`, as the filters of
/// container engines do.
fn forbid_clone3() {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    let refused = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let here = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, here).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn where_memory_cannot_be_borrowed_children_are_forked() {
    let apart = std::thread::spawn(|| {
        forbid_clone3();
        let mut bench = Bench::new();
        assert_eq!(bench.welcome.containment, Containment::BestEffort);
        for expected in [7, 8] {
            let spawned = bench.spawn_shell(&format!("exit {expected}"));
            assert_eq!(code(&bench.exited(spawned.run)), ExitStatus::Code(expected));
        }
        let missing = bench.program(&["/no/such/program"]);
        assert_eq!(bench.fail(missing).stage, LaunchStage::Exec);
    });
    apart.join().unwrap();
}

#[test]
fn a_launch_is_as_old_as_the_first_thing_that_the_program_can_do() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    let record = bench.record(spawned.run).unwrap();
    assert!(spawned.at <= record.started, "{spawned:?}, {record:?}");
}

#[test]
fn fault_48_what_is_held_is_handed_down_from_three_on() {
    let mut bench = Bench::new();
    let mut held = Vec::new();
    for name in ["b", "a", "c"] {
        let (mine, theirs) = io::pipe().unwrap();
        bench.engine.send(&ToKeeper::Hold { name: name.into() }, vec![theirs.into()]);
        held.push((name, mine));
    }
    let text = "for n in 3 4 5; do echo $n >&$n; done; echo $LISTEN_FDS $LISTEN_FDNAMES; \
                test $LISTEN_PID = $$ && echo mine; ls /proc/self/fd";
    let mut spawn = bench.shell(text);
    spawn.env.push(b"LISTEN_FDS=77".to_vec());
    spawn.rlimits = vec![(Rlimit::Nofile, LimitSpec { soft: Some(16), hard: Some(16) })];
    let down = |name: &str, held: &str| HandedDown { name: name.into(), held: held.into() };
    spawn.sockets = vec![down("one", "a"), down("two", "b"), down("one", "c")];
    // The last one is that of the listing's folder.
    assert_eq!(output(&mut bench, spawn), "3 one:two:one\nmine\n0\n1\n2\n3\n4\n5\n6\n");
    for (name, mut mine) in held {
        let mut byte = [0; 1];
        mine.read_exact(&mut byte).unwrap();
        let expected = match name {
            "a" => b'3',
            "b" => b'4',
            _ => b'5',
        };
        assert_eq!(byte[0], expected, "{name}");
    }
    // One that was lost on the way is no launch without it.
    let mut spawn = bench.shell("true");
    spawn.sockets = vec![down("one", "nobody")];
    let failure = bench.fail(spawn);
    assert_eq!((failure.stage, failure.errno), (LaunchStage::Fork, libc::EMFILE));
    // Whoever is handed nothing is told nothing.
    let spawn = bench.shell("echo ${LISTEN_FDS-none}");
    assert_eq!(output(&mut bench, spawn), "none\n");
}

#[test]
fn s38_the_record_is_complete_when_the_program_starts() {
    let mut bench = Bench::new();
    let run = bench.shell("").run;
    let path = bench.config.records.join(format!("{}.run", run.0 + 1));
    let spawn = bench.shell(&format!("cat {}; echo pid $$", path.display()));
    let run = spawn.run;
    let text = output(&mut bench, spawn);
    assert!(text.contains("\nend\n"), "{text}");
    let pid = text.lines().last().unwrap();
    assert!(text.lines().filter(|line| *line == pid).count() == 2, "{text}");
    let record = bench.record(run).unwrap();
    let state = bench.state(run);
    assert_eq!(record.identity.pid, state.pid);
    assert_eq!(record.identity.inode, state.inode);
    assert_eq!(record.boot_id, bench.welcome.boot_id);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    bench.send(&ToKeeper::Ack { run });
    assert!(bench.list().is_empty());
    crate::bench::until("its record is gone", || bench.record(run).is_none().then_some(()));
    let is_gone = || record.cgroup.as_ref().is_none_or(|group| !group.exists());
    crate::bench::until("its group is gone", || is_gone().then_some(()));
}

#[test]
fn a_program_inherits_three_descriptors_and_nothing_else() {
    // Something that whoever started the keeper left open, without close-on-exec.
    let leaked = File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let mut bench = Bench::new();
    // Another run, so that the keeper has descriptors that could leak.
    let other = bench.spawn_shell("exec sleep 1000");
    let spawn = bench.program(&["ls", "-l", "/proc/self/fd"]);
    let text = output(&mut bench, spawn);
    let shown: Vec<_> = text.lines().filter_map(|line| line.split_once(" -> ")).collect();
    let targets: Vec<_> = shown.iter().map(|(_, target)| *target).collect();
    let log = bench.path("log").display().to_string();
    assert_eq!(targets[..3], ["/dev/null", &log, &log]);
    // The fourth is the folder that `ls` itself reads.
    assert_eq!(targets.len(), 4, "{text}");
    assert!(targets[3].starts_with("/proc/"));
    let spawn = bench.program(&["cat", "/proc/self/status"]);
    let text = output(&mut bench, spawn);
    for signals in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(text.contains(&format!("{signals}:\t0000000000000000")), "{text}");
    }
    bench.kill_tree(other.run);
}

#[test]
fn the_environment_is_what_was_asked_for_and_the_tag() {
    let mut bench = Bench::new();
    let mut spawn = bench.program(&["/usr/bin/env"]);
    spawn.env = [&b"A=1"[..], b"EMPTY=", b"STIGMER_RUN=forged"].map(<[u8]>::to_vec).to_vec();
    let tag = format!("STIGMER_RUN={}:{}", bench.config.tag, spawn.run);
    let text = output(&mut bench, spawn);
    assert_eq!(lines(&text), BTreeSet::from(["A=1", "EMPTY=", &tag]));
}

#[test]
fn a_large_environment_travels_whole() {
    let mut bench = Bench::new();
    let mut spawn = bench.program(&["/usr/bin/env"]);
    // The kernel takes at most 128 KiB a variable.
    spawn.env =
        (0..3).map(|n| [format!("V{n}=").into_bytes(), vec![b'x'; 100_000]].concat()).collect();
    let text = output(&mut bench, spawn);
    assert_eq!(text.lines().filter(|line| line.len() == 100_003).count(), 3);
}

#[test]
fn umask_nice_limits_session_and_directory_are_set() {
    let mut bench = Bench::new();
    let mut spawn = bench.shell(
        "umask; nice; ulimit -S -c; ulimit -H -c; ulimit -S -f; pwd; \
         cut -d' ' -f6 /proc/$$/stat; echo $$",
    );
    spawn.umask = Some(0o027);
    spawn.nice = Some(5);
    spawn.rlimits = vec![
        (Rlimit::Core, LimitSpec { soft: Some(0), hard: Some(512 * 1024) }),
        (Rlimit::Fsize, LimitSpec { soft: Some(512 * 2048), hard: None }),
    ];
    let folder = bench.folder.path().display().to_string();
    let text = output(&mut bench, spawn);
    let got: Vec<_> = text.lines().collect();
    assert_eq!(got[..6], ["0027", "5", "0", "1024", "2048", &folder]);
    // The leader of a session of its own.
    assert_eq!(got[6], got[7]);
}

#[test]
fn the_limit_of_open_files_is_not_the_keepers() {
    let mut bench = Bench::new();
    let spawn = bench.shell("ulimit -S -n; ulimit -H -n");
    let text = output(&mut bench, spawn);
    let mine = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("unlimited".into(), |limit| limit.to_string());
    assert_eq!(text, format!("{}\n{}\n", shown(mine.current), shown(mine.maximum)));
    let keepers = fs::read_to_string(format!("/proc/{}/limits", bench.keeper.id())).unwrap();
    let line = keepers.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values[0], values[1]);
}

#[test]
fn the_user_is_changed_or_the_reason_told() {
    let mut bench = Bench::new();
    fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spawn = bench.shell("id -u; id -g; id -G; cat /proc/self/status | grep CapEff");
    spawn.user = Some(Credentials { uid: 12_345, gid: 54_321, groups: vec![54_321, 777] });
    if nix::unistd::geteuid().is_root() {
        let text = output(&mut bench, spawn);
        assert!(text.starts_with("12345\n54321\n54321 777\nCapEff:\t0000000000000000"), "{text}");
        assert_eq!(fs::metadata(bench.path("log")).unwrap().uid(), 0);
    } else {
        let failure = bench.fail(spawn);
        assert_eq!((failure.stage, failure.errno), (LaunchStage::User, libc::EPERM));
    }
}

#[test]
fn the_log_is_private_and_appended_to() {
    let mut bench = Bench::new();
    for word in ["one", "two"] {
        let spawned = bench.spawn_shell(&format!("echo {word}; echo {word} >&2"));
        bench.exited(spawned.run);
    }
    assert_eq!(bench.log(), "one\none\ntwo\ntwo\n");
    assert_eq!(fs::metadata(bench.path("log")).unwrap().mode() & 0o777, 0o600);
}

/// A shared description would be locked at each write.
#[test]
fn stdout_and_stderr_have_positions_of_their_own() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("echo four; exec sleep 1000");
    until("it has written", || (bench.log() == "four\n").then_some(()));
    let position = |descriptor| {
        let path = format!("/proc/{}/fdinfo/{descriptor}", spawned.pid);
        let text = fs::read_to_string(path).unwrap();
        text.lines().next().unwrap().split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!((position(1), position(2)), ("5".into(), "0".into()));
}

#[test]
fn output_can_go_to_a_descriptor() {
    let mut bench = Bench::new();
    let mut spawn = bench.shell("echo out; echo err >&2");
    spawn.log = LogTarget::Passed;
    let run = spawn.run;
    let (mut reader, writer) = io::pipe().unwrap();
    bench.engine.send(&ToKeeper::Spawn(Box::new(spawn.clone())), vec![writer.into()]);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out\nerr\n");
    assert_eq!(code(&bench.exited(run)), ExitStatus::Code(0));
    // Without the descriptor there is nowhere to write to.
    let mut spawn = bench.shell("true");
    spawn.log = LogTarget::Passed;
    assert_eq!(bench.fail(spawn).stage, LaunchStage::Log);
}

#[test]
fn f27_four_mistakes_have_four_messages() {
    let mut bench = Bench::new();
    let write = |name: &str, text: &[u8], mode: u32| {
        write_executable(&bench.path(name), text, mode);
    };
    write("not-executable", b"#!/bin/sh\n", 0o644);
    write("bad-format", b"\x01\x02\x03\x04 nonsense", 0o755);
    write("no-interpreter", b"#!/no/such/interpreter -x\n", 0o755);
    write("windows", b"#!/bin/sh\r\necho\r\n", 0o755);
    write("foreign", &foreign_program(), 0o755);
    let mut messages = BTreeSet::new();
    for (program, errno, detail, word) in [
        ("./missing", libc::ENOENT, Detail::None, "does not exist"),
        ("missing-on-path", libc::ENOENT, Detail::None, "was not found in"),
        ("./not-executable", libc::EACCES, Detail::NotExecutable, "execute bit"),
        ("./bad-format", libc::ENOEXEC, Detail::None, "bad format"),
        ("./no-interpreter", libc::ENOENT, Detail::InterpreterMissing, "/no/such/interpreter"),
        ("./windows", libc::ENOENT, Detail::InterpreterMissing, "Windows line endings"),
        ("./foreign", libc::ENOENT, Detail::LoaderMissing, "/lib/ld-none.so.1"),
        (".", libc::EACCES, Detail::Directory, "is a folder"),
        ("./windows/x", libc::ENOTDIR, Detail::None, "does not exist"),
    ] {
        let program = if program == "." { "./" } else { program };
        let spawn = bench.program(&[program]);
        let run = spawn.run;
        let failure = bench.fail(spawn);
        assert_eq!(failure.stage, LaunchStage::Exec);
        assert_eq!(failure.detail, detail, "{program}: {failure:?}");
        assert!(failure.errno == errno || failure.errno == libc::ENOENT, "{program}: {failure:?}");
        let search_path = Some("/usr/local/bin:/usr/bin:/bin");
        let asked = Asked { program, search_path, working_dir: bench.folder.path() };
        let error = explain(&failure, &asked);
        assert!(error.message.contains(word), "{error:?}");
        assert!(error.hint.is_some() && error.retry == Retry::Counted, "{error:?}");
        messages.insert(error.message);
        // Nothing that a later daemon could take for a run is left.
        assert!(bench.record(run).is_none());
    }
    assert_eq!(messages.len(), 9);
}

/// A program for this machine whose loader does not exist.
fn foreign_program() -> Vec<u8> {
    let mut program = fs::read("/bin/sh").unwrap();
    let loader = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = program.windows(loader.len()).position(|window| window == loader);
    // On other machines the loader has another name; any ELF header with one entry does as well.
    let replacement = b"/lib/ld-none.so.1\0";
    if let Some(at) = at {
        program[at..at + replacement.len()].copy_from_slice(replacement);
        program[at + replacement.len()..at + loader.len()].fill(0);
    }
    program
}

#[test]
fn s26_other_launches_that_cannot_be_are_told_with_their_stage() {
    let mut bench = Bench::new();
    let mut spawn = bench.shell("true");
    spawn.working_dir = b"/no/such/folder".to_vec();
    let failure = bench.fail(spawn);
    assert_eq!((failure.stage, failure.errno), (LaunchStage::WorkingDir, libc::ENOENT));
    let mut spawn = bench.shell("true");
    spawn.working_dir = b"relative".to_vec();
    assert_eq!(bench.fail(spawn).stage, LaunchStage::WorkingDir);
    let mut spawn = bench.shell("true");
    spawn.log = LogTarget::Path(b"/no/such/folder/log".to_vec());
    let failure = bench.fail(spawn);
    assert_eq!((failure.stage, failure.errno), (LaunchStage::Log, libc::ENOENT));
    assert_eq!(failure.subject, b"/no/such/folder/log");
    let spawn = bench.program(&[]);
    assert_eq!(bench.fail(spawn).stage, LaunchStage::Prepare);
    let spawn = bench.program(&["/bin/echo", "a\0b"]);
    assert_eq!(bench.fail(spawn).stage, LaunchStage::Prepare);
    let mut spawn = bench.shell("true");
    spawn.key = "a\nb".into();
    assert_eq!(bench.fail(spawn).stage, LaunchStage::Prepare);
    let mut spawn = bench.shell("true");
    spawn.env.push([&b"TOO_LONG="[..], &vec![b'x'; 200_000]].concat());
    let failure = bench.fail(spawn);
    assert_eq!((failure.stage, failure.errno), (LaunchStage::Exec, libc::E2BIG));
    // The number of a run whose record is still there is not used again.
    let mut spawn = bench.shell("true");
    spawn.run = RunId(1_000);
    fs::write(bench.config.records.join(format!("{}.run", spawn.run)), "").unwrap();
    let failure = bench.fail(spawn);
    assert_eq!((failure.stage, failure.errno), (LaunchStage::Record, libc::EEXIST));
    // After all that the keeper still works.
    let spawned = bench.spawn_shell("exit 3");
    assert_eq!(code(&bench.exited(spawned.run)), ExitStatus::Code(3));
}

#[test]
fn f28_a_file_being_written_is_tried_again_for_a_short_while() {
    let mut bench = Bench::new();
    let path = bench.path("program");
    let mut writer = File::options().create_new(true).write(true).mode(0o755).open(&path).unwrap();
    writer.write_all(&fs::read("/bin/true").unwrap()).unwrap();
    let spawn = bench.program(&["./program"]);
    let failure = bench.fail(spawn);
    assert_eq!((failure.stage, failure.errno), (LaunchStage::Exec, libc::ETXTBSY));
    let asked = Asked { program: "./program", search_path: None, working_dir: Path::new("/") };
    assert!(explain(&failure, &asked).retry == Retry::Soon);
    // Held open by whoever writes it until just after the launch was asked for.
    let spawn = bench.program(&["./program"]);
    let run = spawn.run;
    bench.send(&ToKeeper::Spawn(Box::new(spawn)));
    drop(writer);
    assert_eq!(code(&bench.exited(run)), ExitStatus::Code(0));
}

#[test]
fn a_run_that_is_known_is_not_started_twice() {
    let mut bench = Bench::new();
    let spawn = bench.shell("echo started; exec sleep 1000");
    let spawned = bench.spawn(spawn.clone());
    crate::bench::until("it writes", || (!bench.log().is_empty()).then_some(()));
    bench.send(&ToKeeper::Spawn(Box::new(spawn)));
    let state = bench.engine.wait(|message| match message {
        FromKeeper::RunState(state) => Some(state),
        _ => None,
    });
    assert_eq!(state.pid, spawned.pid);
    bench.kill_tree(spawned.run);
    assert_eq!(bench.log(), "started\n");
}

#[test]
fn a_thousand_launches_leave_nothing_behind() {
    let mut bench = Bench::new();
    let descriptors =
        |bench: &Bench| fs::read_dir(format!("/proc/{}/fd", bench.keeper.id())).unwrap().count();
    let before = descriptors(&bench);
    for _ in 0..10 {
        let batch: Vec<_> = (0..100).map(|_| bench.program(&["/bin/true"])).collect();
        let mut left: BTreeSet<_> = batch.iter().map(|spawn| spawn.run).collect();
        for spawn in batch {
            bench.send(&ToKeeper::Spawn(Box::new(spawn)));
        }
        while !left.is_empty() {
            let exited = bench.engine.wait(|message| match message {
                FromKeeper::Exited(exited) => Some(exited),
                FromKeeper::SpawnFailed(failure) => panic!("{failure:?}"),
                _ => None,
            });
            assert_eq!(code(&exited), ExitStatus::Code(0));
            assert!(left.remove(&exited.run));
            if !exited.empty {
                bench.gone(exited.run);
            }
            bench.send(&ToKeeper::Ack { run: exited.run });
        }
    }
    assert!(bench.list().is_empty());
    let count = || fs::read_dir(&bench.config.records).unwrap().count();
    crate::bench::until("no record is left", || (count() == 0).then_some(()));
    // It answers when it has closed those of what was made for the next launch.
    bench.list();
    assert_eq!(descriptors(&bench), before);
}

#[test]
fn idle_it_waits_without_a_timeout() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("exec sleep 1000");
    let path = format!("/proc/{}/syscall", bench.keeper.id());
    // `epoll_pwait`, where the fourth argument is the timeout in milliseconds: none is -1.
    crate::bench::until("the keeper waits", || {
        let text = fs::read_to_string(&path).ok()?;
        let call: Vec<_> = text.split_whitespace().collect();
        let is_waiting =
            ["232", "281", "22"].contains(call.first()?) && *call.get(4)? == "0xffffffffffffffff";
        is_waiting.then_some(())
    });
    bench.kill_tree(spawned.run);
}
