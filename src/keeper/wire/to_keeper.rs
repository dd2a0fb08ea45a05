//! `ToKeeper` to bytes and back.

use super::codec::{Reader, Writer};
use super::{Adopt, Credentials, HandedDown, LogTarget, Scope, Spawn, ToKeeper, WireError};
use crate::model::RunId;
use crate::model::spec::{LimitSpec, Rlimit};

const HELLO: u8 = 1;
const SPAWN: u8 = 2;
const SIGNAL: u8 = 3;
const KILL_TREE: u8 = 4;
const ACK: u8 = 5;
const ADOPT: u8 = 6;
const LIST: u8 = 7;
const HOLD: u8 = 8;
const RELEASE: u8 = 9;
const SHUTDOWN: u8 = 10;
const REHEARSE: u8 = 11;
const REPLACE: u8 = 12;
const AT_WORK: u8 = 13;
const FREEZE: u8 = 14;

impl ToKeeper {
    /// Appends the message to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let mut out = Writer(buffer);
        match self {
            Self::Hello { version } => {
                out.u8(HELLO);
                out.u32(*version);
            }
            Self::Spawn(spawn) => {
                out.u8(SPAWN);
                write_spawn(&mut out, spawn);
            }
            Self::Signal { run, signal, scope, resume } => {
                out.u8(SIGNAL);
                out.u64(run.0);
                out.i32(*signal);
                out.bool(*scope == Scope::Tree);
                out.bool(*resume);
            }
            Self::KillTree { run } => {
                out.u8(KILL_TREE);
                out.u64(run.0);
            }
            Self::Ack { run } => {
                out.u8(ACK);
                out.u64(run.0);
            }
            Self::Adopt(adopt) => {
                out.u8(ADOPT);
                out.u64(adopt.run.0);
                out.bytes(adopt.key.as_bytes());
                out.u32(adopt.pid);
                out.u64(adopt.inode);
                out.u64(adopt.start_ticks);
            }
            Self::List => out.u8(LIST),
            Self::Hold { name } => {
                out.u8(HOLD);
                out.bytes(name.as_bytes());
            }
            Self::Release { name } => {
                out.u8(RELEASE);
                out.bytes(name.as_bytes());
            }
            Self::Shutdown => out.u8(SHUTDOWN),
            Self::Rehearse => out.u8(REHEARSE),
            Self::Replace { program } => {
                out.u8(REPLACE);
                out.bytes(program);
            }
            Self::AtWork => out.u8(AT_WORK),
            Self::Freeze { key } => {
                out.u8(FREEZE);
                out.bytes(key.as_bytes());
            }
        }
    }

    /// Reads a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader(bytes);
        Ok(match input.u8()? {
            HELLO => Self::Hello { version: input.u32()? },
            SPAWN => Self::Spawn(Box::new(read_spawn(&mut input)?)),
            SIGNAL => Self::Signal {
                run: RunId(input.u64()?),
                signal: input.i32()?,
                scope: if input.bool()? { Scope::Tree } else { Scope::Main },
                resume: input.bool()?,
            },
            KILL_TREE => Self::KillTree { run: RunId(input.u64()?) },
            ACK => Self::Ack { run: RunId(input.u64()?) },
            ADOPT => Self::Adopt(Adopt {
                run: RunId(input.u64()?),
                key: input.text()?,
                pid: input.u32()?,
                inode: input.u64()?,
                start_ticks: input.u64()?,
            }),
            LIST => Self::List,
            HOLD => Self::Hold { name: input.text()? },
            RELEASE => Self::Release { name: input.text()? },
            SHUTDOWN => Self::Shutdown,
            REHEARSE => Self::Rehearse,
            REPLACE => Self::Replace { program: input.bytes()?.to_vec() },
            AT_WORK => Self::AtWork,
            FREEZE => Self::Freeze { key: input.text()? },
            kind => return Err(WireError::Kind(kind)),
        })
    }
}

fn write_spawn(out: &mut Writer<'_>, spawn: &Spawn) {
    out.u64(spawn.run.0);
    out.bytes(spawn.key.as_bytes());
    out.list(&spawn.argv, |out, argument| out.bytes(argument));
    out.list(&spawn.env, |out, variable| out.bytes(variable));
    out.bytes(&spawn.working_dir);
    out.option(spawn.user.as_ref(), |out, user| {
        out.u32(user.uid);
        out.u32(user.gid);
        out.list(&user.groups, |out, group| out.u32(*group));
    });
    out.option(spawn.umask, Writer::u32);
    out.option(spawn.nice, Writer::i32);
    out.list(&spawn.rlimits, |out, (resource, limit)| {
        out.u8(rlimit_code(*resource));
        out.option(limit.soft, Writer::u64);
        out.option(limit.hard, Writer::u64);
    });
    match &spawn.log {
        LogTarget::Path(path) => out.option(Some(path), |out, path| out.bytes(path)),
        LogTarget::Passed => out.option(None::<()>, |_, ()| ()),
    }
    out.bool(spawn.own_group);
    out.bool(spawn.aux);
    out.list(&spawn.sockets, |out, socket| {
        out.bytes(socket.name.as_bytes());
        out.bytes(socket.held.as_bytes());
    });
}

fn read_spawn(input: &mut Reader<'_>) -> Result<Spawn, WireError> {
    Ok(Spawn {
        run: RunId(input.u64()?),
        key: input.text()?,
        argv: input.list(|input| input.bytes().map(<[u8]>::to_vec))?,
        env: input.list(|input| input.bytes().map(<[u8]>::to_vec))?,
        working_dir: input.bytes()?.to_vec(),
        user: input.option(|input| {
            Ok(Credentials {
                uid: input.u32()?,
                gid: input.u32()?,
                groups: input.list(Reader::u32)?,
            })
        })?,
        umask: input.option(Reader::u32)?,
        nice: input.option(Reader::i32)?,
        rlimits: input.list(|input| {
            let resource = rlimit_from(input.u8()?)?;
            let soft = input.option(Reader::u64)?;
            let hard = input.option(Reader::u64)?;
            Ok((resource, LimitSpec { soft, hard }))
        })?,
        log: input
            .option(|input| input.bytes().map(<[u8]>::to_vec))?
            .map_or(LogTarget::Passed, LogTarget::Path),
        own_group: input.bool()?,
        aux: input.bool()?,
        sockets: input.list(|input| Ok(HandedDown { name: input.text()?, held: input.text()? }))?,
    })
}

/// The order is part of the protocol: resources are only ever added at the end.
const RLIMITS: [Rlimit; 15] = [
    Rlimit::As,
    Rlimit::Core,
    Rlimit::Cpu,
    Rlimit::Data,
    Rlimit::Fsize,
    Rlimit::Memlock,
    Rlimit::Msgqueue,
    Rlimit::Nice,
    Rlimit::Nofile,
    Rlimit::Nproc,
    Rlimit::Rss,
    Rlimit::Rtprio,
    Rlimit::Rttime,
    Rlimit::Sigpending,
    Rlimit::Stack,
];

fn rlimit_code(resource: Rlimit) -> u8 {
    let position = RLIMITS.iter().position(|known| *known == resource);
    position.and_then(|position| u8::try_from(position).ok()).unwrap_or(u8::MAX)
}

fn rlimit_from(code: u8) -> Result<Rlimit, WireError> {
    let unknown = WireError::Value { what: "a resource limit", value: code.into() };
    RLIMITS.get(usize::from(code)).copied().ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::messages;
    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    fn spawn() -> impl Strategy<Value = Spawn> {
        let first = (
            any::<u64>(),
            ".{0,20}",
            prop::collection::vec(bytes(), 0..5),
            prop::collection::vec(bytes(), 0..5),
            bytes(),
            prop::option::of((
                any::<u32>(),
                any::<u32>(),
                prop::collection::vec(any::<u32>(), 0..4),
            )),
        );
        let limit = (0..RLIMITS.len(), any::<Option<u64>>(), any::<Option<u64>>());
        let second = (
            any::<Option<u32>>(),
            any::<Option<i32>>(),
            prop::collection::vec(limit, 0..4),
            prop::option::of(bytes()),
            any::<bool>(),
            any::<bool>(),
            prop::collection::vec((".{0,20}", ".{0,20}"), 0..3),
        );
        (first, second).prop_map(|(first, second)| Spawn {
            run: RunId(first.0),
            key: first.1,
            argv: first.2,
            env: first.3,
            working_dir: first.4,
            user: first.5.map(|(uid, gid, groups)| Credentials { uid, gid, groups }),
            umask: second.0,
            nice: second.1,
            rlimits: second
                .2
                .into_iter()
                .map(|(index, soft, hard)| (RLIMITS[index], LimitSpec { soft, hard }))
                .collect(),
            log: second.3.map_or(LogTarget::Passed, LogTarget::Path),
            own_group: second.4,
            aux: second.5,
            sockets: second.6.into_iter().map(|(name, held)| HandedDown { name, held }).collect(),
        })
    }

    fn message() -> impl Strategy<Value = ToKeeper> {
        let run = any::<u64>().prop_map(RunId);
        prop_oneof![
            any::<u32>().prop_map(|version| ToKeeper::Hello { version }),
            spawn().prop_map(|spawn| ToKeeper::Spawn(Box::new(spawn))),
            (any::<u64>(), any::<i32>(), any::<bool>(), any::<bool>()).prop_map(
                |(run, signal, tree, resume)| ToKeeper::Signal {
                    run: RunId(run),
                    signal,
                    scope: if tree { Scope::Tree } else { Scope::Main },
                    resume,
                }
            ),
            run.clone().prop_map(|run| ToKeeper::KillTree { run }),
            run.prop_map(|run| ToKeeper::Ack { run }),
            (any::<u64>(), ".{0,20}", any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
                |(run, key, pid, inode, start_ticks)| ToKeeper::Adopt(Adopt {
                    run: RunId(run),
                    key,
                    pid,
                    inode,
                    start_ticks,
                })
            ),
            Just(ToKeeper::List),
            ".{0,20}".prop_map(|name| ToKeeper::Hold { name }),
            ".{0,20}".prop_map(|name| ToKeeper::Release { name }),
            Just(ToKeeper::Shutdown),
            Just(ToKeeper::Rehearse),
            bytes().prop_map(|program| ToKeeper::Replace { program }),
            Just(ToKeeper::AtWork),
            ".{0,20}".prop_map(|key| ToKeeper::Freeze { key }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_the_trip(message in message(), added in bytes()) {
            let mut buffer = Vec::new();
            message.encode(&mut buffer);
            prop_assert_eq!(ToKeeper::decode(&buffer), Ok(message.clone()));
            // A newer engine may add fields at the end.
            buffer.extend_from_slice(&added);
            prop_assert_eq!(ToKeeper::decode(&buffer), Ok(message));
        }

        #[test]
        fn a_message_cut_short_is_an_error(message in message()) {
            let mut buffer = Vec::new();
            message.encode(&mut buffer);
            for length in 0..buffer.len() {
                prop_assert!(ToKeeper::decode(&buffer[..length]).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(kind in 0_u8..17, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&bytes, ToKeeper::decode).count();
            let mut with_kind = vec![kind];
            with_kind.extend_from_slice(&bytes);
            let _ = messages(&with_kind, ToKeeper::decode).count();
        }
    }

    #[test]
    fn a_made_up_count_takes_no_memory() {
        let mut buffer = vec![SPAWN];
        buffer.extend_from_slice(&[0; 12]);
        buffer.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(ToKeeper::decode(&buffer), Err(WireError::Short));
    }
}
