//! From a spec to what the keeper is asked: the environment, the user, the secrets.
//!
//! The environment of a component is made anew, never inherited: the documented base (`PATH`, `HOME`,
//! `USER`, `SHELL`, `LANG`, `TZ`), then `STIGMER_PROJECT`, `STIGMER_COMPONENT` and `STIGMER_REPLICA`,
//! then what is declared; the later wins. `PATH`, `LANG` and `TZ` come from the `apply`, the others from
//! the user that the component runs as. Secrets are resolved here, at each launch, and are in memory for
//! as long as the run lasts, because exec probes share its environment. For `stigmer exec` the same is
//! made once more, and handed out.
//!
//! Failure paths: a secret that cannot be had is a failed launch. Nothing here holds the engine up: a
//! file is read on a thread of its own, a command has a minute.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::helper::Helpers;
use crate::keeper::wire::{Credentials, HandedDown, LogTarget, Spawn};
use crate::model::event::human_duration;
use crate::model::spec::{EnvValue, ProcessSpec, SecretRef};
use crate::model::{InstanceId, LaunchError, LaunchStage, Retry, RunId};

/// The base of a project's environments: PATH, LANG and TZ of its apply.
pub type BaseEnv = Arc<BTreeMap<String, String>>;

/// Where programs are looked up if the `apply` had no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A secret is a line or a key, not a film.
const LONGEST_SECRET: u64 = 1024 * 1024;

/// How long the command of a secret may take. One that asks somebody waits for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Everything that processes of one run have in common: the component itself, its exec probes, its
/// stop command.
#[derive(Clone, Debug)]
pub struct Recipe {
    env: BTreeMap<String, String>,
    working_dir: Vec<u8>,
    user: Option<Credentials>,
    spec: ProcessSpec,
    key: String,
}

impl Recipe {
    /// Resolves what the spec names.
    pub async fn prepare(
        instance: &InstanceId,
        spec: &ProcessSpec,
        base_env: &BTreeMap<String, String>,
        helpers: &Helpers,
    ) -> Result<Self, LaunchError> {
        let person = person(spec.user.as_deref(), spec.group.as_deref())?;
        let mut recipe = Self {
            env: base(instance, &person, base_env),
            working_dir: spec.working_dir.as_os_str().as_bytes().to_vec(),
            user: person.credentials,
            spec: spec.clone(),
            key: instance.to_string(),
        };
        // A secret's command sees the base and the plain values, whatever their order in the file.
        let mut secrets = Vec::new();
        for (name, value) in &spec.env {
            match value {
                EnvValue::Plain(value) => {
                    recipe.env.insert(name.clone(), value.clone());
                }
                EnvValue::Secret(secret) => secrets.push((name, secret)),
            }
        }
        for (name, secret) in secrets {
            let value = recipe.resolve(secret, helpers).await.map_err(|error| LaunchError {
                retry: error.retry,
                ..prepare_error(format!("cannot resolve the secret {name}: {}", error.why))
            })?;
            recipe.env.insert(name.clone(), value);
        }
        Ok(recipe)
    }

    /// The declared variables, and those by which a program knows whose it is, as `NAME=value`: what a
    /// container gets, whose image has a base of its own.
    #[must_use]
    pub fn declared(&self) -> Vec<String> {
        let own = ["STIGMER_PROJECT", "STIGMER_COMPONENT", "STIGMER_REPLICA"];
        self.env
            .iter()
            .filter(|(name, _)| own.contains(&name.as_str()) || self.spec.env.contains_key(*name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Where the component's programs are looked up.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        self.env.get("PATH").map(String::as_str)
    }

    /// The whole environment, secrets and all.
    #[must_use]
    pub const fn environment(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Whom the component's programs run as; `None` is the daemon's own user.
    #[must_use]
    pub const fn user(&self) -> Option<&Credentials> {
        self.user.as_ref()
    }

    /// The same for a program that is to run as another user, with its `HOME`, `USER` and `SHELL` where
    /// these are not declared. Secrets stay what they were resolved to.
    ///
    /// # Errors
    /// There is no such user or group.
    pub fn as_user(mut self, user: &str, group: Option<&str>) -> Result<Self, LaunchError> {
        let person = person(Some(user), group)?;
        self.user = person.credentials;
        for (name, value) in [("HOME", person.home), ("USER", person.name), ("SHELL", person.shell)]
        {
            if !self.spec.env.contains_key(name) {
                self.env.insert(name.to_owned(), value);
            }
        }
        Ok(self)
    }

    /// Where the component's programs start.
    #[must_use]
    pub fn working_dir(&self) -> &Path {
        &self.spec.working_dir
    }

    /// What the keeper is asked, for the component itself.
    #[must_use]
    pub fn component(&self, run: RunId, log: &Path, sockets: Vec<HandedDown>) -> Spawn {
        let log = LogTarget::Path(log.as_os_str().as_bytes().to_vec());
        Spawn { sockets, ..self.spawn(run, self.spec.command.argv(), log, false) }
    }

    /// What the keeper is asked, for a helper of the component.
    #[must_use]
    pub fn helper(&self, run: RunId, argv: Vec<String>) -> Spawn {
        self.spawn(run, argv, LogTarget::Passed, true)
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: String) -> Self {
        self.env.insert(name.to_owned(), value);
        self
    }

    fn spawn(&self, run: RunId, argv: Vec<String>, log: LogTarget, aux: bool) -> Spawn {
        Spawn {
            run,
            key: self.key.clone(),
            argv: argv.into_iter().map(String::into_bytes).collect(),
            env: self.env.iter().map(|(name, value)| format!("{name}={value}").into()).collect(),
            working_dir: self.working_dir.clone(),
            user: self.user.clone(),
            umask: self.spec.umask,
            nice: self.spec.nice,
            rlimits: self.spec.rlimits.iter().map(|(limit, value)| (*limit, *value)).collect(),
            log,
            own_group: true,
            aux,
            sockets: Vec::new(),
        }
    }

    async fn resolve(&self, secret: &SecretRef, helpers: &Helpers) -> Result<String, Unresolved> {
        let value = match secret {
            SecretRef::File(path) => {
                // The file may lie on a file server that is gone: nobody else waits for it.
                let path = path.clone();
                crate::blocking::spawn(move || read_secret(&path))
                    .await
                    .map_err(|error| error.to_string())??
            }
            SecretRef::Env(name) => std::env::var(name)
                .map_err(|_| format!("{name} is not set in the environment of the daemon"))?,
            SecretRef::Command(argv) => {
                let output = tokio::time::timeout(LONGEST_WAIT, helpers.run(self, argv.clone()))
                    .await
                    .map_err(|_| {
                        let limit = human_duration(LONGEST_WAIT);
                        format!("its command {} gave no answer within {limit}", argv.join(" "))
                    })??;
                match output.status {
                    crate::model::ExitStatus::Code(0) => String::from_utf8(output.output)
                        .map_err(|_| "the output of its command is not UTF-8".to_owned())?,
                    // What it wrote may hold the secret, so it is not shown.
                    status => {
                        let exit = crate::model::Exit { status, oom: false };
                        return Err(
                            format!("its command {} ended with {exit}", argv.join(" ")).into()
                        );
                    }
                }
            }
        };
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let value = value.strip_suffix('\r').unwrap_or(value);
        if value.contains('\0') {
            return Err("it contains a NUL byte, which no environment can hold".to_owned().into());
        }
        Ok(value.to_owned())
    }
}

/// Why there is no value, and whether that says anything of the component.
struct Unresolved {
    why: String,
    retry: Retry,
}

impl From<String> for Unresolved {
    fn from(why: String) -> Self {
        Self { why, retry: Retry::Counted }
    }
}

impl From<LaunchError> for Unresolved {
    fn from(error: LaunchError) -> Self {
        Self { why: error.message, retry: error.retry }
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let explain = |error: std::io::Error| format!("{}: {error}", path.display());
    // Opening a FIFO would wait for its other end.
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(explain)?;
    if !file.metadata().map_err(explain)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut text = String::new();
    let length = file.take(LONGEST_SECRET + 1).read_to_string(&mut text).map_err(explain)?;
    if length as u64 > LONGEST_SECRET {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    Ok(text)
}

/// Where the programs of a component are looked up, as far as that can be said without resolving secrets.
pub fn search_path<'a>(
    spec: &'a ProcessSpec,
    base_env: &'a BTreeMap<String, String>,
) -> Option<&'a str> {
    match spec.env.get("PATH") {
        Some(EnvValue::Plain(path)) => Some(path),
        Some(EnvValue::Secret(_)) => None,
        None => Some(base_env.get("PATH").map_or(DEFAULT_PATH, String::as_str)),
    }
}

fn prepare_error(message: String) -> LaunchError {
    LaunchError {
        stage: LaunchStage::Prepare,
        errno: None,
        message,
        hint: None,
        retry: Retry::Counted,
    }
}

/// Whether the machine or the daemon has run out of something, which says nothing of the component.
fn is_scarcity(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN)
}

/// Who a component runs as.
struct Person {
    name: String,
    home: String,
    shell: String,
    /// `None`: the daemon's own user.
    credentials: Option<Credentials>,
}

fn person(user: Option<&str>, group: Option<&str>) -> Result<Person, LaunchError> {
    let user_error = |message: String, hint: &str| LaunchError {
        stage: LaunchStage::User,
        errno: None,
        message,
        hint: Some(hint.to_owned()),
        retry: Retry::Counted,
    };
    let is_named = user.is_some() || group.is_some();
    let known = match user {
        None => own_user(),
        Some(text) => match text.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(text),
        },
    }
    .map_err(|errno| LaunchError {
        errno: Some(errno as i32),
        retry: if is_scarcity(errno) { Retry::Soon } else { Retry::Counted },
        ..prepare_error(format!("cannot look up the user: {errno}"))
    })?;
    let gid = match group {
        None => None,
        Some(text) => Some(match text.parse::<u32>() {
            Ok(gid) => Gid::from_raw(gid),
            Err(_) => {
                Group::from_name(text)
                    .ok()
                    .flatten()
                    .ok_or_else(|| {
                        user_error(
                            format!("there is no group {text}"),
                            "make it, or correct `group:`",
                        )
                    })?
                    .gid
            }
        }),
    };
    let Some(known) = known else {
        let uid = match user {
            None => nix::unistd::geteuid().as_raw(),
            // A number needs no entry in the user database.
            Some(text) => text.parse().map_err(|_| {
                user_error(format!("there is no user {text}"), "make it, or correct `user:`")
            })?,
        };
        let gid = gid.map_or(uid, Gid::as_raw);
        return Ok(Person {
            name: uid.to_string(),
            home: "/".into(),
            shell: "/bin/sh".into(),
            credentials: is_named.then_some(Credentials { uid, gid, groups: vec![gid] }),
        });
    };
    let credentials = is_named.then(|| {
        let gid = gid.unwrap_or(known.gid);
        Credentials { uid: known.uid.as_raw(), gid: gid.as_raw(), groups: groups(&known, gid) }
    });
    Ok(Person {
        home: known.dir.to_string_lossy().into_owned(),
        shell: known.shell.to_string_lossy().into_owned(),
        name: known.name,
        credentials,
    })
}

/// The daemon's own user, looked up once: who it is does not change while it runs, and a launch then
/// needs neither a descriptor nor a database for it.
fn own_user() -> nix::Result<Option<User>> {
    static OWN: OnceLock<Option<User>> = OnceLock::new();
    if let Some(known) = OWN.get() {
        return Ok(known.clone());
    }
    let found = User::from_uid(nix::unistd::geteuid())?;
    Ok(OWN.get_or_init(|| found).clone())
}

/// The supplementary groups of a user; the primary one alone where they cannot be looked up.
fn groups(user: &User, primary: Gid) -> Vec<u32> {
    CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, primary).ok())
        .map_or_else(
            || vec![primary.as_raw()],
            |groups| groups.into_iter().map(Gid::as_raw).collect(),
        )
}

/// The documented base of every component's environment.
fn base(
    instance: &InstanceId,
    person: &Person,
    base_env: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("HOME".to_owned(), person.home.clone()),
        ("USER".to_owned(), person.name.clone()),
        ("SHELL".to_owned(), person.shell.clone()),
        ("STIGMER_PROJECT".to_owned(), instance.project.to_string()),
        ("STIGMER_COMPONENT".to_owned(), instance.component.to_string()),
        ("STIGMER_REPLICA".to_owned(), instance.replica.to_string()),
    ]);
    for name in ["PATH", "LANG", "TZ"] {
        if let Some(value) = base_env.get(name) {
            env.insert(name.to_owned(), value.clone());
        }
    }
    env
}
