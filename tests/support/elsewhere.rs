//! Commands of stigmer in surroundings of their own: other mounts, other limits.

use std::process::Command;

use super::home::TestHome;

impl TestHome {
    /// The same command, after a line of shell that runs before it as the user of stigmer: `ulimit`.
    pub(crate) fn after(&self, script: &str, command: &Command) -> Command {
        self.wrapped(command, &["sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")], true)
    }

    /// The same command with mounts of its own, made by a line of shell that runs as root; nobody else
    /// sees them. `None` where the test is not run by root, who alone can do that.
    pub(crate) fn with_mounts(&self, script: &str, command: &Command) -> Option<Command> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let drop = self.user().map_or_else(String::new, |user| {
            format!("setpriv --reuid {0} --regid {0} --clear-groups ", user.uid)
        });
        let script = format!("{script} && exec {drop}\"$0\" \"$@\"");
        let own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
        Some(self.wrapped(command, &own, false))
    }

    /// The same command in what looks like another boot, which cannot be had here: its id can, and a daemon
    /// that sees another one knows of no other difference. `None`, said, where the test is not run by root.
    #[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know")]
    pub(crate) fn after_a_boot(&self, command: &Command) -> Option<Command> {
        use std::os::unix::fs::PermissionsExt as _;
        let id = self.root().join("boot_id");
        let written = std::fs::write(&id, "11111111-2222-3333-4444-555555555555\n")
            .and_then(|()| std::fs::set_permissions(&id, std::fs::Permissions::from_mode(0o644)));
        assert!(written.is_ok(), "{written:?}");
        let mount = format!("mount --bind {} /proc/sys/kernel/random/boot_id", id.display());
        let command = self.with_mounts(&mount, command);
        if command.is_none() {
            eprintln!("not root: no other boot can be pretended");
        }
        command
    }

    /// The same command in a user namespace of its own, after a line of shell that may change the limits
    /// of that namespace. `None`, said on standard error, where nobody may make one.
    #[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know")]
    pub(crate) fn in_user_namespace(&self, script: &str, command: &Command) -> Option<Command> {
        let script = format!("{script} && exec \"$0\" \"$@\"");
        let own = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c"];
        let mut trial = self.wrapped(&Command::new("true"), &[&own[..], &[&script]].concat(), true);
        if !trial.output().is_ok_and(|output| output.status.success()) {
            eprintln!("no user namespace can be made here");
            return None;
        }
        Some(self.wrapped(command, &[&own[..], &[&script]].concat(), true))
    }

    fn wrapped(&self, command: &Command, by: &[&str], as_user: bool) -> Command {
        let mut wrapped = Command::new(by[0]);
        wrapped.args(&by[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        // A command does not tell as whom it runs.
        self.user().filter(|_| as_user).into_iter().for_each(|user| user.run(&mut wrapped));
        wrapped
    }
}
