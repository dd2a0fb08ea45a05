//! What belongs to a run ends with it, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use stigmer::keeper::wire::{Containment, FromKeeper, RunPhase, Scope, ToKeeper};
use stigmer::model::{ExitStatus, RunId};

use crate::ahead::{made, next};
use crate::bench::{
    Bench, code, is_alive, signal, state_of, tagged_processes, until, wait_dead, wait_number,
};

/// Both ways of containment; that a cgroup is really used where there is one is a test of its own.
fn both(test: impl Fn(Bench)) {
    test(Bench::new());
    test(Bench::best_effort());
}

#[test]
fn containment_is_told_and_true() {
    let mut bench = Bench::new();
    let spawned = bench.spawn_shell("cat /proc/self/cgroup; exec sleep 1000");
    let state = bench.state(spawned.run);
    assert_eq!(state.containment, bench.welcome.containment);
    let group = bench.record(spawned.run).unwrap().cgroup;
    assert_eq!(group.is_some(), bench.welcome.containment == Containment::Cgroup);
    if let Some(group) = group {
        let suffix = format!("stigmer-{}/{}", bench.config.tag, spawned.run);
        let log = until("the component writes", || Some(bench.log()).filter(|l| l.ends_with('\n')));
        assert!(log.lines().any(|line| line.ends_with(&suffix)), "{log}");
        until("only the component is in its group", || {
            let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap();
            (listed.trim() == spawned.pid.to_string()).then_some(())
        });
    }
    let bench = Bench::best_effort();
    assert_eq!(bench.welcome.containment, Containment::BestEffort);
}

#[test]
fn s55_a_grandchild_in_a_session_of_its_own_ends_with_its_component() {
    both(|mut bench| {
        let spawned = bench.spawn_shell(
            "(setsid sh -c 'echo $$ > grandchild; exec sleep 1000' &) ; \
             until [ -s grandchild ]; do :; done; exit 4",
        );
        let exited = bench.exited(spawned.run);
        assert_eq!(code(&exited), ExitStatus::Code(4));
        assert!(!exited.empty);
        let grandchild = wait_number(&bench.path("grandchild"));
        assert!(is_alive(grandchild));
        // An acknowledgement too early forgets nothing.
        bench.send(&ToKeeper::Ack { run: spawned.run });
        assert_eq!(bench.list().len(), 1);
        bench.send(&ToKeeper::KillTree { run: spawned.run });
        bench.gone(spawned.run);
        assert!(!is_alive(grandchild));
        bench.send(&ToKeeper::Ack { run: spawned.run });
        assert!(bench.list().is_empty());
    });
}

#[test]
fn f24_the_whole_tree_is_killed_while_the_main_process_lives() {
    both(|mut bench| {
        let spawned = bench.spawn_shell(
            "trap '' TERM; \
             (setsid sh -c 'echo $$ > one; exec sleep 1000' &); \
             sh -c 'trap \"\" TERM; echo $$ > two; while :; do sleep 1000; done' & \
             echo $$ > three; while :; do sleep 1000; done",
        );
        let pids = ["one", "two", "three"].map(|name| wait_number(&bench.path(name)));
        assert!(pids.into_iter().all(is_alive));
        let exited = bench.kill_tree(spawned.run);
        assert_eq!(code(&exited), ExitStatus::Signal(9));
        assert!(!pids.into_iter().any(is_alive));
        let tag = format!("STIGMER_RUN={}:{}", bench.config.tag, spawned.run);
        assert!(tagged_processes(&tag).is_empty());
    });
}

#[test]
fn a_tree_that_ends_by_itself_is_told_to_be_gone() {
    both(|mut bench| {
        let gate = bench.gate("gate");
        let spawned = bench.spawn_shell("(setsid sh -c 'read x < gate' &); exit 0");
        assert!(!bench.exited(spawned.run).empty);
        gate.open();
        bench.gone(spawned.run);
        let RunPhase::Ended(exited) = bench.state(spawned.run).phase else { panic!() };
        assert!(exited.empty);
    });
}

#[test]
fn only_a_cgroup_holds_what_clears_its_environment_as_well() {
    let mut bench = Bench::new();
    if bench.welcome.containment == Containment::BestEffort {
        eprintln!("no cgroups here");
        return;
    }
    let spawned = bench.spawn_shell(
        "(env -i setsid /bin/sh -c 'echo $$ > escaped; exec /bin/sleep 1000' &); \
         until [ -s escaped ]; do :; done",
    );
    assert!(!bench.exited(spawned.run).empty);
    let escaped = wait_number(&bench.path("escaped"));
    bench.send(&ToKeeper::KillTree { run: spawned.run });
    bench.gone(spawned.run);
    assert!(!is_alive(escaped));
}

#[test]
fn a_group_that_a_component_made_inside_its_own_is_removed_with_it() {
    let mut bench = Bench::new();
    if bench.welcome.containment == Containment::BestEffort {
        eprintln!("no cgroups here");
        return;
    }
    let spawned = bench.spawn_shell("exec sleep 1000");
    let group = bench.record(spawned.run).unwrap().cgroup.unwrap();
    let inner = group.join("inner/most");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("cgroup.procs"), spawned.pid.to_string()).unwrap();
    bench.send(&ToKeeper::Signal {
        run: spawned.run,
        signal: libc::SIGTERM,
        scope: Scope::Tree,
        resume: false,
    });
    assert_eq!(code(&bench.exited(spawned.run)), ExitStatus::Signal(15));
    bench.send(&ToKeeper::Ack { run: spawned.run });
    assert!(bench.list().is_empty());
    until("its group is gone", || (!group.exists()).then_some(()));
}

#[test]
fn signals_reach_the_main_process_or_the_tree() {
    both(|mut bench| {
        let spawned = bench.spawn_shell(
            "trap 'echo main >> got' USR1; \
             sh -c 'trap \"echo child >> got\" USR1; echo ready > ready; \
                    while :; do sleep 1000 & wait; done' & \
             until [ -s ready ]; do :; done; echo $$ > main; while :; do wait; done",
        );
        wait_number(&bench.path("main"));
        let send = |scope| {
            let signal = libc::SIGUSR1;
            bench.send(&ToKeeper::Signal { run: spawned.run, signal, scope, resume: false });
        };
        let got = |count: usize| {
            let path = bench.path("got");
            until("the traps write", || {
                let text = fs::read_to_string(&path).ok()?;
                (text.lines().count() == count).then_some(text)
            })
        };
        send(Scope::Main);
        assert_eq!(got(1), "main\n");
        send(Scope::Tree);
        let text = got(3);
        assert!(text.contains("child"), "{text}");
        bench.kill_tree(spawned.run);
    });
}

#[test]
fn f26_who_ignores_sigterm_is_killed() {
    both(|mut bench| {
        let spawned = bench.spawn_shell(
            "trap 'echo ignored >> got' TERM; echo $$ > main; while :; do read x < /dev/null; done",
        );
        wait_number(&bench.path("main"));
        let run = spawned.run;
        let signal = libc::SIGTERM;
        bench.send(&ToKeeper::Signal { run, signal, scope: Scope::Tree, resume: true });
        until("the trap writes", || bench.path("got").exists().then_some(()));
        assert_eq!(bench.state(run).phase, RunPhase::Running);
        assert_eq!(code(&bench.kill_tree(run)), ExitStatus::Signal(9));
    });
}

#[test]
fn f22_a_stopped_process_takes_its_signal_when_resumed() {
    both(|mut bench| {
        let spawned = bench.spawn_shell("kill -STOP $$; while :; do sleep 1000; done");
        until("the component has stopped", || (state_of(spawned.pid) == Some('T')).then_some(()));
        bench.send(&ToKeeper::Signal {
            run: spawned.run,
            signal: libc::SIGTERM,
            scope: Scope::Main,
            resume: true,
        });
        assert_eq!(code(&bench.exited(spawned.run)), ExitStatus::Signal(15));
        // And one that nobody resumes can still be killed.
        let spawned = bench.spawn_shell("kill -STOP $$; exec sleep 1000");
        until("the component has stopped", || (state_of(spawned.pid) == Some('T')).then_some(()));
        assert_eq!(code(&bench.kill_tree(spawned.run)), ExitStatus::Signal(9));
    });
}

#[test]
fn f34_closing_stdout_is_not_an_exit() {
    let mut bench = Bench::new();
    let gate = bench.gate("gate");
    let spawned = bench.spawn_shell("exec >&- 2>&-; echo $$ > closed; read x < gate; exit 6");
    wait_number(&bench.path("closed"));
    assert_eq!(bench.state(spawned.run).phase, RunPhase::Running);
    gate.open();
    assert_eq!(code(&bench.exited(spawned.run)), ExitStatus::Code(6));
}

#[test]
fn helpers_end_with_the_engine_that_asked_for_them() {
    both(|mut bench| {
        let mut spawn = bench.shell("trap '' TERM HUP INT; sleep 1000 & echo $! > inner; wait");
        spawn.aux = true;
        let helper = bench.spawn(spawn);
        let component = bench.spawn_shell("exec sleep 1000");
        let inner = wait_number(&bench.path("inner"));
        bench.replace_engine();
        wait_dead(helper.pid);
        wait_dead(inner);
        assert!(bench.list().iter().all(|state| state.run != helper.run));
        until("its record is removed", || bench.record(helper.run).is_none().then_some(()));
        assert_eq!(bench.state(component.run).phase, RunPhase::Running);
        bench.kill_tree(component.run);
    });
}

#[test]
fn helpers_whose_signals_were_merged_are_told_of_and_leave_no_descriptor() {
    both(|mut bench| {
        let keeper = bench.keeper.id();
        let descriptors = || fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
        let component = bench.spawn_shell("exec sleep 1000");
        // Among them those of the next launch, which is made ready when nothing happens.
        made(&bench, next(component.run));
        // It answers when it has made all of it.
        bench.list();
        let before = descriptors();
        let helpers: Vec<_> = (0..30)
            .map(|number| {
                let mut spawn = bench.program(&["sleep", "1000"]);
                (spawn.run, spawn.aux) = (RunId((1 << 55) + number), true);
                bench.spawn(spawn)
            })
            .collect();
        assert!(descriptors() >= before + helpers.len());
        // While it stands still, all signals become one.
        signal(keeper, Signal::STOP);
        until("the keeper stands still", || (state_of(keeper) == Some('T')).then_some(()));
        for helper in &helpers {
            signal(helper.pid, Signal::TERM);
            until("it has ended", || (state_of(helper.pid) == Some('Z')).then_some(()));
        }
        signal(component.pid, Signal::INT);
        signal(keeper, Signal::CONT);
        let mut left: BTreeSet<_> = helpers.iter().map(|helper| helper.run).collect();
        left.insert(component.run);
        bench.engine.wait(|message| {
            if let FromKeeper::Exited(exited) = message {
                let is_component = exited.run == component.run;
                let expected = if is_component { Signal::INT } else { Signal::TERM };
                assert_eq!(code(&exited), ExitStatus::Signal(expected.as_raw()));
                assert!(left.remove(&exited.run), "told twice of {}", exited.run);
            }
            left.is_empty().then_some(())
        });
        until("its descriptors are closed", || (descriptors() == before).then_some(()));
    });
}

#[test]
fn orphans_and_strangers_do_not_disturb() {
    both(|mut bench| {
        // Children of the keeper that it does not know: left over by a run that goes on.
        let long = bench.spawn_shell(
            "for i in 1 2 3; do (setsid sh -c 'exec sleep 1000' &); done; echo $$ > ready; \
             exec sleep 1000",
        );
        wait_number(&bench.path("ready"));
        let short = bench.spawn_shell("exit 0");
        let exited = bench.exited(short.run);
        assert!(exited.empty, "the orphans of another run are not its own");
        bench.kill_tree(long.run);
    });
}

#[test]
fn unknown_runs_are_ignored() {
    let mut bench = Bench::new();
    let run = RunId(999);
    bench.send(&ToKeeper::KillTree { run });
    bench.send(&ToKeeper::Ack { run });
    bench.send(&ToKeeper::Signal { run, signal: 9, scope: Scope::Tree, resume: true });
    bench.send(&ToKeeper::Release { name: "nothing".into() });
    let too_high = RunId(u64::MAX);
    let mut spawn = bench.shell("true");
    spawn.run = too_high;
    bench.send(&ToKeeper::Spawn(Box::new(spawn)));
    assert!(bench.list().is_empty());
    let spawned = bench.spawn_shell("exec sleep 1000");
    // A number that is no signal.
    let signal = 4_711;
    bench.send(&ToKeeper::Signal { run: spawned.run, signal, scope: Scope::Main, resume: false });
    assert_eq!(bench.state(spawned.run).phase, RunPhase::Running);
    bench.kill_tree(spawned.run);
}

#[test]
fn f21_a_process_that_has_the_number_by_chance_is_neither_adopted_nor_killed() {
    both(|mut bench| {
        let spawned = bench.spawn_shell("exec sleep 1000");
        let mut record = bench.record(spawned.run).unwrap();
        bench.kill_tree(spawned.run);
        bench.send(&ToKeeper::Ack { run: spawned.run });
        let mut stranger = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        // As if the kernel had given the number of the run's process to another one.
        record.run = RunId(500);
        record.identity.pid = stranger.id();
        record.cgroup = None;
        let text = format!(
            "stigmer-run 1\nrun 500\nkey {}\npid {}\ninode {}\nstart {}\nboot {}\ncgroup -\n\
             aux 0\nstarted 1\nend\n",
            record.key,
            record.identity.pid,
            record.identity.inode,
            record.identity.start_ticks,
            record.boot_id
        );
        fs::write(bench.config.records.join("500.run"), text).unwrap();
        let state = bench.adopt(&record);
        let RunPhase::Ended(exited) = state.phase else { panic!("{state:?}") };
        assert_eq!(code(&exited), ExitStatus::Unknown);
        assert!(exited.empty);
        bench.send(&ToKeeper::KillTree { run: record.run });
        bench.send(&ToKeeper::Signal {
            run: record.run,
            signal: 9,
            scope: Scope::Main,
            resume: false,
        });
        bench.send(&ToKeeper::Signal {
            run: record.run,
            signal: 9,
            scope: Scope::Tree,
            resume: false,
        });
        bench.list();
        assert!(is_alive(stranger.id()));
        signal(stranger.id(), Signal::KILL);
        stranger.wait().unwrap();
    });
}
