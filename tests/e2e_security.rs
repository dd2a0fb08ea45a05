//! Whom the daemon trusts: files of its own, and manifests of root's.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "this crate uses a part of the harness")]
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use support::home::TestHome;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_manifest_that_others_may_write_is_refused_by_a_daemon_of_roots() {
    let home = TestHome::new();
    if !home.is_root() {
        let _ = writeln!(std::io::stderr(), "not root: who writes a manifest only harms himself");
        return;
    }
    let yaml = "components: { api: { command: [sleep, infinity], env_file: [values.env] } }\n";
    let values = home.write("values.env", "A=b\n");
    let manifest = home.manifest(yaml);
    let refused = |file: &Path, remedy: &str| {
        let said = home.run(["apply"]).expect_code(5);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(said.stderr.contains(name), "{said:#?}");
        assert!(said.stderr.contains("decides what root executes"), "{said:#?}");
        assert!(said.stderr.contains(remedy), "{remedy}: {said:#?}");
    };
    // Before there is a daemon none is started for it.
    mode(&manifest, 0o666);
    refused(&manifest, &format!("chmod go-w {}", manifest.display()));
    home.run(["ping"]).expect_code(4);
    mode(&manifest, 0o644);
    home.run(["apply"]).expect_code(0);
    let pid = home.pid_of("api");

    chown(&manifest, Some(12_345), None).unwrap();
    refused(&manifest, &format!("chown root {}", manifest.display()));
    chown(&manifest, Some(0), None).unwrap();
    mode(&values, 0o602);
    refused(&values, &format!("chmod go-w {}", values.display()));
    mode(&values, 0o600);
    mode(&home.project(), 0o777);
    refused(&manifest, &format!("chmod go-w {}", home.project().display()));
    mode(&home.project(), 0o755);

    // An edit of one that has become writable is no reload: what runs goes on, and the status says why.
    mode(&manifest, 0o666);
    fs::write(&manifest, yaml.replace("infinity", "1000")).unwrap();
    let error = home.wait_for("the refusal in the status", || {
        let project = home.only_project();
        project["manifest"]["error"]["message"].as_str().map(str::to_owned)
    });
    assert!(error.contains("may be written by others"), "{error}");
    assert_eq!(home.pid_of("api"), pid);
    mode(&manifest, 0o644);
    home.run(["reload"]).expect_code(0);
    home.wait_replaced("api", pid);
    // Whoever has his own daemon may write what he likes; nothing else is said to them.
}

#[test]
fn files_that_others_have_put_into_an_open_folder_are_refused() {
    let home = TestHome::new();
    home.manifest("components: { api: { command: [sleep, infinity] } }\n");
    // A folder was open to all, and somebody has made use of it.
    for folder in ["logs", "run"] {
        let path = home.home().join(folder);
        fs::create_dir(&path).unwrap();
        mode(&path, 0o777);
        home.user().into_iter().for_each(|user| user.own(&path));
    }
    let precious = home.root().join("precious");
    fs::write(&precious, "precious").unwrap();
    home.user().into_iter().for_each(|user| user.own(&precious));
    for place in ["state.db", "logs/daemon.log", "run/daemon.lock"] {
        let path = home.home().join(place);
        symlink(&precious, &path).unwrap();
        let refused = home.run(["apply"]).expect_code(1);
        assert!(refused.stderr.contains(path.to_str().unwrap()), "{refused:#?}");
        assert!(refused.stderr.contains("symbolic link"), "{refused:#?}");
        fs::remove_file(&path).unwrap();
    }
    // The log of a component: it is not launched, and it is said why.
    let logs = home.home().join("logs/p");
    fs::create_dir(&logs).unwrap();
    home.user().into_iter().for_each(|user| user.own(&logs));
    symlink(&precious, logs.join("api.log")).unwrap();
    home.run(["apply", "--no-wait"]).expect_code(0);
    let message = home.wait_for("a launch that failed", || {
        home.try_component("api")?["last_error"]["message"].as_str().map(str::to_owned)
    });
    assert!(message.contains("api.log"), "{message}");
    home.run(["why", "api"]);
    fs::remove_file(logs.join("api.log")).unwrap();
    home.wait_ready("api");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    // And the folders are open no more.
    for folder in ["logs", "run", "logs/p", "run/runs"] {
        let found = fs::metadata(home.home().join(folder)).unwrap();
        assert_eq!(found.mode() & 0o777, 0o700, "{folder}");
    }
}

#[test]
fn a_home_of_somebody_else_or_behind_a_symlink_is_refused() {
    let home = TestHome::new();
    home.manifest("components: { api: { command: [sleep, infinity] } }\n");
    let link = home.root().join("link");
    symlink(home.home(), &link).unwrap();
    let refused = home.run(["--home", link.to_str().unwrap(), "apply"]).expect_code(1);
    assert!(refused.stderr.contains("symbolic link"), "{refused:#?}");
    if rustix::process::geteuid().is_root() {
        let other = home.root().join("other");
        fs::create_dir(&other).unwrap();
        chown(&other, Some(12_345), Some(12_345)).unwrap();
        mode(&other, 0o777);
        let refused = home.run(["--home", other.to_str().unwrap(), "apply"]).expect_code(1);
        assert!(refused.stderr.contains("belongs to another user"), "{refused:#?}");
    }
}
