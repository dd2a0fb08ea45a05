//! `FromKeeper` to bytes and back.

use std::time::Duration;

use super::codec::{Reader, Writer};
use super::{
    Containment, Detail, Exited, FromKeeper, LaunchFailure, RunPhase, RunState, Spawned, Welcome,
    WireError,
};
use crate::model::{Exit, ExitStatus, LaunchStage, RunId, Time};

const WELCOME: u8 = 1;
const SPAWNED: u8 = 2;
const SPAWN_FAILED: u8 = 3;
const EXITED: u8 = 4;
const GONE: u8 = 5;
const RUN_STATE: u8 = 6;
const HELD_FD: u8 = 7;
const LIST_END: u8 = 8;
const TERMINATE: u8 = 9;
const RELOAD_REQUESTED: u8 = 10;
const ESTATE: u8 = 11;
const NOT_REPLACED: u8 = 12;

impl FromKeeper {
    /// Appends the message to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let mut out = Writer(buffer);
        match self {
            Self::Welcome(welcome) => {
                out.u8(WELCOME);
                out.u32(welcome.version);
                out.u32(welcome.keeper_pid);
                out.u64(welcome.started_at);
                out.bytes(welcome.boot_id.as_bytes());
                out.bool(welcome.containment == Containment::Cgroup);
            }
            Self::Spawned(spawned) => {
                out.u8(SPAWNED);
                out.u64(spawned.run.0);
                out.u32(spawned.pid);
                out.u64(spawned.inode);
                out.u64(spawned.at.as_nanos());
            }
            Self::SpawnFailed(failure) => {
                out.u8(SPAWN_FAILED);
                write_failure(&mut out, failure);
            }
            Self::Exited(exited) => {
                out.u8(EXITED);
                write_exited(&mut out, exited);
            }
            Self::Gone { run } => {
                out.u8(GONE);
                out.u64(run.0);
            }
            Self::RunState(state) => {
                out.u8(RUN_STATE);
                write_state(&mut out, state);
            }
            Self::HeldFd { name } => {
                out.u8(HELD_FD);
                out.bytes(name.as_bytes());
            }
            Self::ListEnd => out.u8(LIST_END),
            Self::Terminate { signal } => {
                out.u8(TERMINATE);
                out.i32(*signal);
            }
            Self::ReloadRequested => out.u8(RELOAD_REQUESTED),
            Self::Estate => out.u8(ESTATE),
            Self::NotReplaced { why } => {
                out.u8(NOT_REPLACED);
                out.bytes(why.as_bytes());
            }
        }
    }

    /// Reads a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader(bytes);
        Ok(match input.u8()? {
            WELCOME => Self::Welcome(Welcome {
                version: input.u32()?,
                keeper_pid: input.u32()?,
                started_at: input.u64()?,
                boot_id: input.text()?,
                containment: read_containment(&mut input)?,
            }),
            SPAWNED => Self::Spawned(Spawned {
                run: RunId(input.u64()?),
                pid: input.u32()?,
                inode: input.u64()?,
                at: Time::from_nanos(input.u64()?),
            }),
            SPAWN_FAILED => Self::SpawnFailed(read_failure(&mut input)?),
            EXITED => Self::Exited(read_exited(&mut input)?),
            GONE => Self::Gone { run: RunId(input.u64()?) },
            RUN_STATE => Self::RunState(Box::new(read_state(&mut input)?)),
            HELD_FD => Self::HeldFd { name: input.text()? },
            LIST_END => Self::ListEnd,
            TERMINATE => Self::Terminate { signal: input.i32()? },
            RELOAD_REQUESTED => Self::ReloadRequested,
            ESTATE => Self::Estate,
            NOT_REPLACED => Self::NotReplaced { why: input.text()? },
            kind => return Err(WireError::Kind(kind)),
        })
    }
}

fn read_containment(input: &mut Reader<'_>) -> Result<Containment, WireError> {
    Ok(if input.bool()? { Containment::Cgroup } else { Containment::BestEffort })
}

/// Appends a failed launch.
pub(in crate::keeper) fn write_failure(out: &mut Writer<'_>, failure: &LaunchFailure) {
    out.u64(failure.run.0);
    out.u8(stage_code(failure.stage));
    out.i32(failure.errno);
    out.u8(detail_code(failure.detail));
    out.bytes(&failure.subject);
}

/// Reads a failed launch.
pub(in crate::keeper) fn read_failure(input: &mut Reader<'_>) -> Result<LaunchFailure, WireError> {
    Ok(LaunchFailure {
        run: RunId(input.u64()?),
        stage: stage_from(input.u8()?)?,
        errno: input.i32()?,
        detail: detail_from(input.u8()?)?,
        subject: input.bytes()?.to_vec(),
    })
}

/// Appends an end.
pub(in crate::keeper) fn write_exited(out: &mut Writer<'_>, exited: &Exited) {
    let (kind, value) = match exited.exit.status {
        ExitStatus::Code(code) => (0, code),
        ExitStatus::Signal(signal) => (1, signal),
        ExitStatus::Unknown => (2, 0),
    };
    out.u64(exited.run.0);
    out.u8(kind);
    out.i32(value);
    out.bool(exited.exit.oom);
    out.u64(exited.at.as_nanos());
    out.bool(exited.empty);
    out.u64(u64::try_from(exited.cpu.as_nanos()).unwrap_or(u64::MAX));
}

/// Reads an end.
pub(in crate::keeper) fn read_exited(input: &mut Reader<'_>) -> Result<Exited, WireError> {
    let run = RunId(input.u64()?);
    let kind = input.u8()?;
    let value = input.i32()?;
    let status = match kind {
        0 => ExitStatus::Code(value),
        1 => ExitStatus::Signal(value),
        2 => ExitStatus::Unknown,
        other => {
            return Err(WireError::Value { what: "an exit status", value: other.into() });
        }
    };
    Ok(Exited {
        run,
        exit: Exit { status, oom: input.bool()? },
        at: Time::from_nanos(input.u64()?),
        empty: input.bool()?,
        cpu: Duration::from_nanos(input.u64()?),
    })
}

fn write_state(out: &mut Writer<'_>, state: &RunState) {
    out.u64(state.run.0);
    out.bytes(state.key.as_bytes());
    out.bool(state.aux);
    out.u32(state.pid);
    out.u64(state.inode);
    out.u64(state.spawned_at.as_nanos());
    out.bool(state.containment == Containment::Cgroup);
    match &state.phase {
        RunPhase::Launching => out.u8(0),
        RunPhase::Running => out.u8(1),
        RunPhase::Failed(failure) => {
            out.u8(2);
            write_failure(out, failure);
        }
        RunPhase::Ended(exited) => {
            out.u8(3);
            write_exited(out, exited);
        }
    }
}

fn read_state(input: &mut Reader<'_>) -> Result<RunState, WireError> {
    Ok(RunState {
        run: RunId(input.u64()?),
        key: input.text()?,
        aux: input.bool()?,
        pid: input.u32()?,
        inode: input.u64()?,
        spawned_at: Time::from_nanos(input.u64()?),
        containment: read_containment(input)?,
        phase: match input.u8()? {
            0 => RunPhase::Launching,
            1 => RunPhase::Running,
            2 => RunPhase::Failed(read_failure(input)?),
            3 => RunPhase::Ended(read_exited(input)?),
            other => {
                return Err(WireError::Value { what: "the phase of a run", value: other.into() });
            }
        },
    })
}

/// The order is part of the protocol, also of the one between fork and exec.
const STAGES: [LaunchStage; 10] = [
    LaunchStage::Prepare,
    LaunchStage::Log,
    LaunchStage::Cgroup,
    LaunchStage::Fork,
    LaunchStage::Limits,
    LaunchStage::User,
    LaunchStage::WorkingDir,
    LaunchStage::Record,
    LaunchStage::Exec,
    LaunchStage::Container,
];

/// The number of a stage.
pub(in crate::keeper) fn stage_code(stage: LaunchStage) -> u8 {
    let position = STAGES.iter().position(|known| *known == stage);
    position.and_then(|position| u8::try_from(position).ok()).unwrap_or(u8::MAX)
}

/// The stage of a number.
pub(in crate::keeper) fn stage_from(code: u8) -> Result<LaunchStage, WireError> {
    let unknown = WireError::Value { what: "a stage of a launch", value: code.into() };
    STAGES.get(usize::from(code)).copied().ok_or(unknown)
}

const DETAILS: [Detail; 6] = [
    Detail::None,
    Detail::InterpreterMissing,
    Detail::LoaderMissing,
    Detail::Directory,
    Detail::NotExecutable,
    Detail::Died,
];

/// The number of a detail.
pub(in crate::keeper) fn detail_code(detail: Detail) -> u8 {
    let position = DETAILS.iter().position(|known| *known == detail);
    position.and_then(|position| u8::try_from(position).ok()).unwrap_or(0)
}

/// The detail of a number.
pub(in crate::keeper) fn detail_from(code: u8) -> Result<Detail, WireError> {
    let unknown = WireError::Value { what: "a detail of a failed launch", value: code.into() };
    DETAILS.get(usize::from(code)).copied().ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    fn failure() -> impl Strategy<Value = LaunchFailure> {
        (any::<u64>(), 0..STAGES.len(), any::<i32>(), 0..DETAILS.len(), bytes()).prop_map(
            |(run, stage, errno, detail, subject)| LaunchFailure {
                run: RunId(run),
                stage: STAGES[stage],
                errno,
                detail: DETAILS[detail],
                subject,
            },
        )
    }

    fn exited() -> impl Strategy<Value = Exited> {
        let status = prop_oneof![
            any::<i32>().prop_map(ExitStatus::Code),
            any::<i32>().prop_map(ExitStatus::Signal),
            Just(ExitStatus::Unknown),
        ];
        (any::<u64>(), status, any::<bool>(), any::<u64>(), any::<bool>(), any::<u64>()).prop_map(
            |(run, status, oom, at, empty, cpu)| Exited {
                run: RunId(run),
                exit: Exit { status, oom },
                at: Time::from_nanos(at),
                empty,
                cpu: Duration::from_nanos(cpu),
            },
        )
    }

    fn containment() -> impl Strategy<Value = Containment> {
        prop_oneof![Just(Containment::Cgroup), Just(Containment::BestEffort)]
    }

    fn state() -> impl Strategy<Value = RunState> {
        let phase = prop_oneof![
            Just(RunPhase::Launching),
            Just(RunPhase::Running),
            failure().prop_map(RunPhase::Failed),
            exited().prop_map(RunPhase::Ended),
        ];
        let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
        (numbers, ".{0,20}", any::<bool>(), containment(), phase).prop_map(
            |((run, pid, inode, at), key, aux, containment, phase)| RunState {
                run: RunId(run),
                key,
                aux,
                pid,
                inode,
                spawned_at: Time::from_nanos(at),
                containment,
                phase,
            },
        )
    }

    fn message() -> impl Strategy<Value = FromKeeper> {
        prop_oneof![
            (any::<u32>(), any::<u32>(), any::<u64>(), ".{0,40}", containment()).prop_map(
                |(version, keeper_pid, started_at, boot_id, containment)| {
                    FromKeeper::Welcome(Welcome {
                        version,
                        keeper_pid,
                        started_at,
                        boot_id,
                        containment,
                    })
                }
            ),
            (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
                |(run, pid, inode, at)| FromKeeper::Spawned(Spawned {
                    run: RunId(run),
                    pid,
                    inode,
                    at: Time::from_nanos(at),
                })
            ),
            failure().prop_map(FromKeeper::SpawnFailed),
            exited().prop_map(FromKeeper::Exited),
            any::<u64>().prop_map(|run| FromKeeper::Gone { run: RunId(run) }),
            state().prop_map(|state| FromKeeper::RunState(Box::new(state))),
            ".{0,20}".prop_map(|name| FromKeeper::HeldFd { name }),
            Just(FromKeeper::ListEnd),
            any::<i32>().prop_map(|signal| FromKeeper::Terminate { signal }),
            Just(FromKeeper::ReloadRequested),
            Just(FromKeeper::Estate),
            ".{0,40}".prop_map(|why| FromKeeper::NotReplaced { why }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_the_trip(message in message(), added in bytes()) {
            let mut buffer = Vec::new();
            message.encode(&mut buffer);
            prop_assert_eq!(FromKeeper::decode(&buffer), Ok(message.clone()));
            buffer.extend_from_slice(&added);
            prop_assert_eq!(FromKeeper::decode(&buffer), Ok(message));
        }

        #[test]
        fn a_message_cut_short_is_an_error(message in message()) {
            let mut buffer = Vec::new();
            message.encode(&mut buffer);
            for length in 0..buffer.len() {
                prop_assert!(FromKeeper::decode(&buffer[..length]).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(kind in 0_u8..14, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut with_kind = vec![kind];
            with_kind.extend_from_slice(&bytes);
            let _ = FromKeeper::decode(&with_kind);
        }
    }
}
