//! What a container may use, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::schema::scalars::{ByteSize, Cpus, UlimitValue};
use crate::manifest::schema::shape::shaped;

/// Resources in the words of Compose's deployments.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Deploy {
    /// What the container may use.
    pub(in crate::manifest) resources: Option<Resources>,
}

/// What a container may use, and what is kept for it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Resources {
    /// What it may use at the most.
    pub(in crate::manifest) limits: Option<ResourceLimits>,
    /// What is kept for it.
    pub(in crate::manifest) reservations: Option<ResourceLimits>,
}

/// Amounts of resources.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct ResourceLimits {
    /// As `cpus` of the container; nothing can be kept of it.
    pub(in crate::manifest) cpus: Option<Cpus>,
    /// As `mem_limit` or `mem_reservation` of the container.
    pub(in crate::manifest) memory: Option<ByteSize>,
    /// As `pids_limit` of the container; nothing can be kept of it.
    #[schemars(range(min = -1, max = 4_194_304))]
    pub(in crate::manifest) pids: Option<i64>,
}

/// A limit of a container's processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum UlimitName {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl UlimitName {
    /// The word in the manifest and in the engine's interface.
    pub(in crate::manifest) const fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}

/// A limit for both, or soft and hard.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum Ulimit {
    /// Soft and hard.
    Pair(UlimitPair),
    /// The same for both.
    Both(UlimitValue),
}

shaped!(Ulimit { map => Pair(UlimitPair), scalar => Both(UlimitValue) });

/// A soft and a hard limit; one that is left out is as the other.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct UlimitPair {
    /// The limit that is enforced.
    pub(in crate::manifest) soft: Option<UlimitValue>,
    /// Up to which the program may raise it.
    pub(in crate::manifest) hard: Option<UlimitValue>,
}
