//! From a spec to what the keeper is asked: the environment, the user, the secrets.
//!
//! The environment of a component is made anew, never inherited: the documented base (`PATH`, `HOME`,
//! `USER`, `SHELL`, `LANG`, `TZ`), then `STIGMER_PROJECT`, `STIGMER_COMPONENT` and `STIGMER_REPLICA`,
//! then what is declared; the later wins. `PATH`, `LANG` and `TZ` come from the `apply`, the others from
//! the user that the component runs as. Secrets are resolved here, at each launch, and are in memory for
//! as long as the run lasts, because exec probes share its environment.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::helper::Helpers;
use crate::keeper::wire::{Credentials, LogTarget, Spawn};
use crate::model::spec::{EnvValue, ProcessSpec, SecretRef};
use crate::model::{InstanceId, LaunchError, LaunchStage, RunId};

/// Where programs are looked up if the `apply` had no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A secret is a line or a key, not a film.
const LONGEST_SECRET: u64 = 1024 * 1024;

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
        let person = person(spec)?;
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
            let value = recipe
                .resolve(secret, helpers)
                .await
                .map_err(|why| prepare_error(format!("cannot resolve the secret {name}: {why}")))?;
            recipe.env.insert(name.clone(), value);
        }
        Ok(recipe)
    }

    /// Where the component's programs are looked up.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        self.env.get("PATH").map(String::as_str)
    }

    /// Where the component's programs start.
    #[must_use]
    pub fn working_dir(&self) -> &Path {
        &self.spec.working_dir
    }

    /// What the keeper is asked, for the component itself.
    #[must_use]
    pub fn component(&self, run: RunId, log: &Path) -> Spawn {
        let log = LogTarget::Path(log.as_os_str().as_bytes().to_vec());
        self.spawn(run, self.spec.command.argv(), log, false)
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
        }
    }

    async fn resolve(&self, secret: &SecretRef, helpers: &Helpers) -> Result<String, String> {
        let value = match secret {
            SecretRef::File(path) => read_secret(path)?,
            SecretRef::Env(name) => std::env::var(name)
                .map_err(|_| format!("{name} is not set in the environment of the daemon"))?,
            SecretRef::Command(argv) => {
                let output = helpers.run(self, argv.clone()).await?;
                match output.status {
                    crate::model::ExitStatus::Code(0) => String::from_utf8(output.output)
                        .map_err(|_| "the output of its command is not UTF-8".to_owned())?,
                    // What it wrote may hold the secret, so it is not shown.
                    status => {
                        let exit = crate::model::Exit { status, oom: false };
                        return Err(format!("its command {} ended with {exit}", argv.join(" ")));
                    }
                }
            }
        };
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let value = value.strip_suffix('\r').unwrap_or(value);
        if value.contains('\0') {
            return Err("it contains a NUL byte, which no environment can hold".into());
        }
        Ok(value.to_owned())
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let explain = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(explain)?;
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

fn prepare_error(message: String) -> LaunchError {
    LaunchError { stage: LaunchStage::Prepare, errno: None, message, hint: None, transient: false }
}

/// Who a component runs as.
struct Person {
    name: String,
    home: String,
    shell: String,
    /// `None`: the daemon's own user.
    credentials: Option<Credentials>,
}

fn person(spec: &ProcessSpec) -> Result<Person, LaunchError> {
    let user_error = |message: String, hint: &str| LaunchError {
        stage: LaunchStage::User,
        errno: None,
        message,
        hint: Some(hint.to_owned()),
        transient: false,
    };
    let known = match &spec.user {
        None => User::from_uid(nix::unistd::geteuid()),
        Some(text) => match text.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(text),
        },
    }
    .map_err(|error| prepare_error(format!("cannot look up the user: {error}")))?;
    let gid = match &spec.group {
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
    let Some(user) = known else {
        let uid = match &spec.user {
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
            credentials: (spec.user.is_some() || spec.group.is_some()).then_some(Credentials {
                uid,
                gid,
                groups: vec![gid],
            }),
        });
    };
    let credentials = if spec.user.is_some() || spec.group.is_some() {
        let gid = gid.unwrap_or(user.gid);
        Some(Credentials { uid: user.uid.as_raw(), gid: gid.as_raw(), groups: groups(&user, gid) })
    } else {
        None
    };
    Ok(Person {
        home: user.dir.to_string_lossy().into_owned(),
        shell: user.shell.to_string_lossy().into_owned(),
        name: user.name,
        credentials,
    })
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
