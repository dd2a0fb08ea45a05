//! What a component executes: command, environment, user, limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::at::At;
use super::context::{Context, absolute};
use crate::manifest::report::{Diagnostic, Place};
use crate::manifest::schema::OneOrMany;
use crate::manifest::schema::component::{Command, Component, Env, EnvEntry, Limit, Secret};
use crate::manifest::schema::scalars::{FilePath, LimitValue};
use crate::manifest::tree::{Node, Scalar, short};
use crate::manifest::units;
use crate::model::spec::{CommandSpec, EnvValue, LimitSpec, ProcessSpec, Rlimit, SecretRef};

/// The process of a component whose command is known.
pub(super) fn process(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Component,
    command: CommandSpec,
) -> ProcessSpec {
    let working_dir = working_dir(context, at.key("working_dir"), raw);
    let env = environment(context, at, raw);
    let user = raw.user.as_ref().map(|user| user.0.0.clone());
    let group = raw.group.as_ref().map(|group| group.0.0.clone());
    accounts(context, at, user.as_deref(), group.as_deref());
    let umask = raw.umask.as_ref().and_then(|_| umask(context, at.key("umask")));
    if raw.nice.is_some_and(|nice| nice < 0) && !nix::unistd::geteuid().is_root() {
        context.warning(
            at.key("nice").place(),
            "a negative `nice` needs root, and this is another user",
            "without the right to it, the launch fails",
        );
    }
    let rlimits = rlimits(context, at.key("rlimits"), raw);
    ProcessSpec {
        command,
        working_dir,
        env,
        user,
        group,
        umask,
        nice: raw.nice,
        rlimits,
        // Resolved with the ports.
        sockets: BTreeMap::new(),
    }
}

/// A command of the component or of a probe.
pub(super) fn command(context: &mut Context<'_>, at: At<'_>, raw: &Command) -> Option<CommandSpec> {
    match raw {
        Command::Exec(argv) if argv.first().is_some_and(|program| program.0.is_empty()) => {
            context.error(at.item(0).place(), "the program is an empty text", "a program", "");
            None
        }
        Command::Exec(argv) if argv.is_empty() => {
            context.error(at.place(), "the command is an empty list", "a program", "");
            None
        }
        Command::Exec(argv) => {
            Some(CommandSpec::Exec(argv.iter().map(|one| one.0.clone()).collect()))
        }
        Command::Shell(line) if line.trim().is_empty() => {
            context.error(at.place(), "the command is empty", "a line for the shell", "");
            None
        }
        Command::Shell(line) => Some(CommandSpec::Shell(line.clone())),
    }
}

fn working_dir(context: &mut Context<'_>, at: At<'_>, raw: &Component) -> PathBuf {
    let path = match &raw.working_dir {
        None => absolute(context.folder, "."),
        Some(path) => context.path(path),
    };
    if raw.working_dir.is_some() && !context.is_folder(&path) {
        let message = format!("the folder {} is not there", path.display());
        let help = "make it before the component starts, or correct `working_dir`";
        context.warning(at.place(), message, help);
    }
    path
}

fn environment(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Component,
) -> BTreeMap<String, EnvValue> {
    let mut env = BTreeMap::new();
    let files = raw.env_file.iter().flat_map(OneOrMany::as_slice);
    env_files(context, at.key("env_file"), files, &mut env);
    if let Some(declared) = &raw.env {
        variables(context, at.key("env"), declared, &mut env);
    }
    env
}

/// The variables of files, a later over an earlier.
pub(super) fn env_files<'a>(
    context: &mut Context<'_>,
    at: At<'_>,
    files: impl Iterator<Item = &'a FilePath>,
    env: &mut BTreeMap<String, EnvValue>,
) {
    for (index, file) in files.enumerate() {
        let path = context.path(file);
        env_file(context, &path, at.item(index).place(), env);
    }
}

/// The variables of one file.
pub(super) fn env_file(
    context: &mut Context<'_>,
    path: &Path,
    place: Place,
    env: &mut BTreeMap<String, EnvValue>,
) {
    match context.files.get(path) {
        Ok(values) => env.extend(
            values.iter().map(|(name, value)| (name.clone(), EnvValue::Plain(value.clone()))),
        ),
        Err(error) => {
            let error = at_mention(context.file, error, place);
            context.push(error);
        }
    }
}

/// Declared variables. Lists have become maps before the defaults were merged.
pub(super) fn variables(
    context: &mut Context<'_>,
    at: At<'_>,
    Env(entries): &Env,
    env: &mut BTreeMap<String, EnvValue>,
) {
    let places = at.children();
    for (name, entry) in entries {
        let at = places.get(name.as_str()).copied().unwrap_or(at);
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("`{}` is no name of a variable", short(name));
            context.error(at.key_place(), message, "a name without `=`", "");
            continue;
        }
        let value = match entry {
            EnvEntry::Plain(text) => Some(EnvValue::Plain(text.0.clone())),
            EnvEntry::Secret(entry) => {
                secret(context, at.key("secret"), &entry.secret).map(EnvValue::Secret)
            }
            EnvEntry::FromApply(()) => context.value_of_apply(at, name).map(EnvValue::Plain),
        };
        if let Some(value) = value {
            env.insert(name.clone(), value);
        }
    }
}

/// An env file that is not there is a mistake of the line that names it.
pub(in crate::manifest) fn at_mention(
    manifest: &Path,
    error: Diagnostic,
    place: Place,
) -> Diagnostic {
    if error.line > 0 {
        return error;
    }
    let message = format!("the env file {}: {}", error.file.display(), error.message);
    Diagnostic::error(manifest, place, message)
        .expected(error.expected)
        .help("a path is seen from the folder of the manifest")
}

fn secret(context: &mut Context<'_>, at: At<'_>, raw: &Secret) -> Option<SecretRef> {
    let given = [raw.file.is_some(), raw.env.is_some(), raw.command.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        context.error(
            at.key_place(),
            "a secret has exactly one source",
            "one of file, env and command",
            "`secret: { file: path }`, `secret: { env: NAME }` or `secret: { command: [program] }`",
        );
        return None;
    }
    if let Some(path) = &raw.file {
        return Some(SecretRef::File(context.path(path)));
    }
    if let Some(name) = &raw.env {
        return Some(SecretRef::Env(name.clone()));
    }
    raw.command
        .as_ref()
        .map(|argv| SecretRef::Command(argv.iter().map(|one| one.0.clone()).collect()))
}

fn accounts(context: &mut Context<'_>, at: At<'_>, user: Option<&str>, group: Option<&str>) {
    let (me, mine) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if let Some(user) = user {
        let place = at.key("user").place();
        match context.uid(user) {
            None => context.error(
                place,
                format!("there is no user `{}`", short(user)),
                "a name of /etc/passwd, or a number",
                "",
            ),
            Some(uid) if !me.is_root() && uid != me => context.error(
                place,
                format!("only root can run a component as another user, and this is user {me}"),
                "",
                "run the daemon as root, or take `user` out",
            ),
            Some(_) => {}
        }
    }
    if let Some(group) = group {
        let place = at.key("group").place();
        match context.gid(group) {
            None => context.error(
                place,
                format!("there is no group `{}`", short(group)),
                "a name of /etc/group, or a number",
                "",
            ),
            Some(gid) if !me.is_root() && gid != mine => context.error(
                place,
                format!("only root can run a component in another group, and this is group {mine}"),
                "",
                "run the daemon as root, or take `group` out",
            ),
            Some(_) => {}
        }
    }
}

/// Octal digits, whether in quotes or not: `0022`, `"022"`, `0o22`. `22` means 0022 too, because nobody
/// counts modes in tens.
fn umask(context: &mut Context<'_>, at: At<'_>) -> Option<u32> {
    let text = at.node().and_then(|node| node.text()).unwrap_or_default();
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mask = u32::from_str_radix(digits, 8).ok().filter(|mask| *mask <= 0o777);
    if mask.is_none() {
        let message = format!("`{}` is no file mode mask", short(text));
        context.error(at.place(), message, "octal digits from 0000 to 0777, such as \"0022\"", "");
    }
    mask
}

fn rlimits(context: &mut Context<'_>, at: At<'_>, raw: &Component) -> BTreeMap<Rlimit, LimitSpec> {
    let mut found = BTreeMap::new();
    for (name, raw) in raw.rlimits.iter().flatten() {
        let key = at.node().and_then(|node| {
            let is_it = |entry: &&crate::manifest::tree::Entry| {
                format!("{name:?}").eq_ignore_ascii_case(&entry.key)
            };
            node.entries().iter().find(is_it)
        });
        let Some(entry) = key else { continue };
        let at = at.key(&entry.key);
        let mut value = |at: At<'_>, raw: &LimitValue| value_of(context, at, raw);
        let (soft, hard) = match raw {
            Limit::Both(raw) => (Some(value(at, raw)), None),
            Limit::Pair(pair) => (
                pair.soft.as_ref().map(|raw| value(at.key("soft"), raw)),
                pair.hard.as_ref().map(|raw| value(at.key("hard"), raw)),
            ),
        };
        let spec = limit(context, at, soft, hard);
        found.extend(spec.map(|spec| ((*name).into(), spec)));
    }
    found
}

/// The value of a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Unlimited,
    /// It is no limit, which has been said.
    Wrong,
}

impl Value {
    const fn most(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Unlimited | Self::Wrong => None,
        }
    }
}

/// A soft and a hard limit, of which one may be missing.
pub(super) fn limit(
    context: &mut Context<'_>,
    at: At<'_>,
    soft: Option<Value>,
    hard: Option<Value>,
) -> Option<LimitSpec> {
    let Some((soft, hard)) = soft.or(hard).zip(hard.or(soft)) else {
        let expected = "`soft`, `hard` or both";
        context.error(at.key_place(), "a limit without a value", expected, "");
        return None;
    };
    if soft == Value::Wrong || hard == Value::Wrong {
        return None;
    }
    let spec = LimitSpec { soft: soft.most(), hard: hard.most() };
    if spec.soft.unwrap_or(u64::MAX) > spec.hard.unwrap_or(u64::MAX) {
        let expected = "a soft limit of at most the hard one";
        context.error(at.key_place(), "the soft limit is above the hard one", expected, "");
    }
    Some(spec)
}

fn value_of(context: &mut Context<'_>, at: At<'_>, raw: &LimitValue) -> Value {
    let text = raw.0.0.as_str();
    if text == "unlimited" {
        return Value::Unlimited;
    }
    let value = match at.node().and_then(Node::typed) {
        Some(Scalar::Int(value)) => u64::try_from(value).ok(),
        Some(Scalar::Unsigned(value)) => Some(value),
        _ => units::size(text),
    };
    // All bits set is how the kernel says unlimited.
    if let Some(value) = value.filter(|value| *value < u64::MAX) {
        return Value::Number(value);
    }
    let message = format!("`{}` is no limit", short(text));
    context.error(at.place(), message, "a number, a size such as 64MiB, or unlimited", "");
    Value::Wrong
}
