//! What probes need, besides the component itself.

use crate::machine::phase::probe_spec;
use crate::model::ProbeRole;
use crate::model::spec::{Check, ComponentSpec};

/// What a check needs, besides the component itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    /// The container engine's word, if the component is a container.
    pub(super) engine: bool,
    /// A program to be run.
    pub(super) program: bool,
    /// The place in the log where the run begins.
    pub(super) log: bool,
}

pub(super) fn needs(check: &Check) -> Needs {
    let nothing = Needs::default();
    match check {
        Check::Exec(_) | Check::Plugin { .. } => Needs { engine: true, program: true, ..nothing },
        Check::Container | Check::Process => Needs { engine: true, ..nothing },
        Check::Log { .. } => Needs { log: true, ..nothing },
        Check::All(checks) => checks.iter().map(needs).fold(nothing, |all, one| Needs {
            engine: all.engine || one.engine,
            program: all.program || one.program,
            log: all.log || one.log,
        }),
        Check::MinUptime(_)
        | Check::Http(_)
        | Check::Tcp { .. }
        | Check::Unix { .. }
        | Check::Grpc { .. }
        | Check::File { .. } => nothing,
    }
}

/// Whether a probe of the component needs something.
pub(super) fn any_probe(spec: &ComponentSpec, is_so: impl Fn(Needs) -> bool) -> bool {
    ProbeRole::ALL
        .iter()
        .filter_map(|role| probe_spec(&spec.probes, *role))
        .any(|probe| is_so(needs(&probe.check)))
}
