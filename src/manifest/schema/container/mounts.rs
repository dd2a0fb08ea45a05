//! What a container sees of the host and of volumes, as it is written; and the volumes of the project.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::manifest::schema::pairs::Pairs;
use crate::manifest::schema::scalars::{ByteSize, FileMode, Word};
use crate::manifest::schema::shape::shaped;

/// Something that is mounted.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, extend("x-expected" = "a text such as `./data:/data:ro`, or a map"))]
pub(in crate::manifest) enum VolumeEntry {
    /// All of it.
    Full(Box<Mount>),
    /// `[SOURCE:]TARGET[:OPTIONS]`.
    Short(Word),
}

shaped!(VolumeEntry { map => Full(Box<Mount>), scalar => Short(Word) });

/// Something that is mounted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Mount {
    /// What it is.
    #[serde(rename = "type")]
    pub(in crate::manifest) kind: MountKind,
    /// A path of the host, or a volume of the top-level `volumes`. None: a volume of its own.
    pub(in crate::manifest) source: Option<Word>,
    /// Where it is in the container.
    pub(in crate::manifest) target: Word,
    /// It cannot be written. Default: false.
    pub(in crate::manifest) read_only: Option<bool>,
    /// For `bind`.
    pub(in crate::manifest) bind: Option<BindOptions>,
    /// For `volume`.
    pub(in crate::manifest) volume: Option<VolumeOptions>,
    /// For `tmpfs`.
    pub(in crate::manifest) tmpfs: Option<TmpfsOptions>,
}

/// What is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum MountKind {
    /// A folder or a file of the host.
    Bind,
    /// A volume of the engine.
    Volume,
    /// Memory.
    Tmpfs,
}

/// How a folder of the host is mounted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct BindOptions {
    /// Make the folder if it is not there. Default: true.
    pub(in crate::manifest) create_host_path: Option<bool>,
    /// Whether mounts below it are seen on the other side. Default: rprivate.
    pub(in crate::manifest) propagation: Option<Propagation>,
    /// Label it for `SELinux`: `z` shared, `Z` for this container alone.
    pub(in crate::manifest) selinux: Option<Selinux>,
}

/// Whether mounts below a mount are seen on the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename_all = "lowercase")]
pub(in crate::manifest) enum Propagation {
    Private,
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
}

impl Propagation {
    pub(in crate::manifest) const ALL: [Self; 6] =
        [Self::Private, Self::Rprivate, Self::Shared, Self::Rshared, Self::Slave, Self::Rslave];

    pub(in crate::manifest) const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Rprivate => "rprivate",
            Self::Shared => "shared",
            Self::Rshared => "rshared",
            Self::Slave => "slave",
            Self::Rslave => "rslave",
        }
    }
}

/// A label for `SELinux`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
pub(in crate::manifest) enum Selinux {
    /// Containers share it.
    #[serde(rename = "z")]
    Shared,
    /// Of this container alone.
    #[serde(rename = "Z")]
    Private,
}

/// How a volume is mounted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct VolumeOptions {
    /// Do not copy what the image has there into a new volume. Default: false.
    pub(in crate::manifest) nocopy: Option<bool>,
    /// The part of the volume that is mounted. Default: all of it.
    pub(in crate::manifest) subpath: Option<Word>,
}

/// How memory is mounted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct TmpfsOptions {
    /// Its size. Default: half of the memory.
    pub(in crate::manifest) size: Option<ByteSize>,
    /// Its file mode. Default: 1777.
    pub(in crate::manifest) mode: Option<FileMode>,
}

/// A device of the host.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, extend("x-expected" = "a text such as `/dev/ttyUSB0`, or a map"))]
pub(in crate::manifest) enum DeviceEntry {
    /// All of it.
    Full(Device),
    /// `HOST[:CONTAINER[:PERMISSIONS]]`.
    Short(Word),
}

shaped!(DeviceEntry { map => Full(Device), scalar => Short(Word) });

/// A device of the host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Device {
    /// Its path on the host.
    pub(in crate::manifest) source: Word,
    /// Its path in the container. Default: the same.
    pub(in crate::manifest) target: Option<Word>,
    /// Some of `r`, `w` and `m`. Default: rwm.
    pub(in crate::manifest) permissions: Option<Word>,
}

/// A volume of the project, or nothing: a volume as the engine makes it.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum VolumeOrNothing {
    Volume(Volume),
    Nothing(()),
}

shaped!(VolumeOrNothing { map => Volume(Volume), null => Nothing(()) });

impl JsonSchema for VolumeOrNothing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VolumeOrNothing".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let volume = generator.subschema_for::<Volume>();
        json_schema!({
            "description": "A volume. Nothing: one as the engine makes it.",
            "x-expected": "a map, or nothing",
            "anyOf": [volume, { "const": null }],
        })
    }
}

/// A volume that containers name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Volume {
    /// The engine's name of it. Default: `PROJECT_NAME`; of an external one its own.
    pub(in crate::manifest) name: Option<Word>,
    /// Others make it, and it must be there. Default: false.
    pub(in crate::manifest) external: Option<bool>,
    /// What makes it. Default: local.
    pub(in crate::manifest) driver: Option<Word>,
    /// Options of the driver.
    pub(in crate::manifest) driver_opts: Option<Pairs>,
    /// Labels of the volume.
    pub(in crate::manifest) labels: Option<Pairs>,
}
