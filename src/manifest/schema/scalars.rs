//! Scalars of the manifest. Each keeps the text that stands in the file; `resolve` makes the value of
//! it, and can then say what is wrong where.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

macro_rules! scalar {
    ($(#[doc = $doc:literal])* $name:ident, $expected:literal, { $($schema:tt)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
        #[serde(transparent)]
        pub(in crate::manifest) struct $name(pub(in crate::manifest) Text);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!({ $($schema)* });
                let description = [$($doc.trim()),*].join("\n");
                schema.insert("description".into(), description.into());
                // Said in messages: "expected ...".
                schema.insert("x-expected".into(), $expected.into());
                schema
            }
        }
    };
}

/// Any scalar, as it is written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::manifest) struct Text(pub(in crate::manifest) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("text")
            }
            fn visit_str<E>(self, value: &str) -> Result<Text, E> {
                Ok(Text(value.to_owned()))
            }
            // Only out of serde's own buffers; the tree gives the text as it is written.
            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "description": "A text. A number or a boolean is taken as it is written.",
            "x-expected": "a text",
        })
    }
}

scalar!(
    /// The name of a project or a component: letters, digits, `-` and `_`, at most 63, the first a
    /// letter or a digit.
    Name, "a name: letters, digits, `-` and `_`, at most 63, the first a letter or a digit", {
        "type": ["string", "integer"],
        "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$",
    }
);
scalar!(
    /// A length of time: a number with its unit (`ms`, `s`, `m`, `h`, `d`), or several of them.
    Duration, "a duration such as 500ms, 10s or 1m30s", {
        "type": ["string", "integer"],
        "pattern": "^(0|([0-9]+(ms|s|m|h|d))+)$",
        "minimum": 0,
        "maximum": 0,
        "examples": ["500ms", "10s", "1m30s", "10m", "2h", "1d"],
    }
);
scalar!(
    /// A number of bytes, with or without a unit: `kB`, `MB`, `GB`, `TB` count by 1000, `KiB`, `MiB`,
    /// `GiB`, `TiB` by 1024.
    Size, "a size such as 50MB, 64MiB or a number of bytes", {
        "type": ["string", "integer"],
        "pattern": "^[0-9]+ ?(B|[kKMGT]B|[KMGT]iB)?$",
        "minimum": 0,
        "examples": ["50MB", "64MiB", "1GB", 1_000_000],
    }
);
scalar!(
    /// A TCP port, 1 to 65535.
    Port, "a port from 1 to 65535", {
        "type": "integer",
        "minimum": 1,
        "maximum": 65535,
    }
);
scalar!(
    /// A signal: its name with or without `SIG`, or its number.
    Signal, "a signal such as SIGTERM, TERM or 15", {
        "type": ["string", "integer"],
        "minimum": 1,
        "maximum": 64,
        "examples": ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"],
    }
);
scalar!(
    /// An exit code from 0 to 255, or the name of the signal that ended the process.
    ExitStatus, "an exit code from 0 to 255, or the name of a signal such as SIGHUP", {
        "type": ["string", "integer"],
        "minimum": 0,
        "maximum": 255,
        "examples": [78, "SIGHUP"],
    }
);
scalar!(
    /// A regular expression, in the syntax of the `regex` crate: <https://docs.rs/regex>.
    Pattern, "a regular expression", {
        "type": "string",
        "minLength": 1,
        "examples": ["^ready", "listening on port [0-9]+"],
    }
);
scalar!(
    /// A number from 0, or `unlimited`.
    CountOrUnlimited, "a number from 0, or unlimited", {
        "type": ["integer", "string"],
        "minimum": 0,
        "maximum": 1_000_000,
        "pattern": "^unlimited$",
        "examples": [10, "unlimited"],
    }
);
scalar!(
    /// A limit: a number, a size such as `64MiB`, or `unlimited`.
    LimitValue, "a number, a size such as 64MiB, or unlimited", {
        "type": ["integer", "string"],
        "minimum": 0,
        "pattern": "^([0-9]+ ?(B|[kKMGT]B|[KMGT]iB)?|unlimited)$",
        "examples": [1024, "64MiB", "unlimited"],
    }
);
scalar!(
    /// A file mode mask in octal digits.
    Umask, "octal digits such as \"0022\"", {
        "type": ["string", "integer"],
        "pattern": "^(0o?)?[0-7]{1,3}$",
        "minimum": 0,
        "maximum": 777,
        "examples": ["0022", "0077"],
    }
);
scalar!(
    /// A folder or a file. What is relative is seen from the folder of the manifest.
    FilePath, "a path", {
        "type": "string",
        "minLength": 1,
    }
);
scalar!(
    /// A user or a group: its name or its number.
    Account, "a name or a number", {
        "type": ["string", "integer"],
        "minLength": 1,
        "minimum": 0,
        "maximum": 4_294_967_294_u64,
    }
);
scalar!(
    /// An HTTP status, 100 to 599.
    HttpStatus, "an HTTP status from 100 to 599", {
        "type": "integer",
        "minimum": 100,
        "maximum": 599,
        "examples": [200],
    }
);
scalar!(
    /// A text that is not empty. A number is taken as it is written.
    Word, "a text that is not empty", {
        "type": ["string", "number"],
        "minLength": 1,
    }
);
scalar!(
    /// A number of bytes, with or without a unit, as in Compose: `b`, `k`, `m`, `g`, `t`, also with `b`, count
    /// by 1024, as do `KiB`, `MiB`, `GiB`, `TiB`; `kB`, `MB`, `GB`, `TB` count by 1000.
    ByteSize, "a size such as 512m, 1.5g, 64MiB or a number of bytes", {
        "type": ["string", "integer"],
        "pattern": "^[0-9]+([.][0-9]+)? ?([bB]|[kmgtKMGT]|[kmgt]i?b|[kKMGT]B|[KMGT]iB)?$",
        "minimum": 0,
        "examples": ["512m", "1g", "64MiB", 1_000_000],
    }
);
scalar!(
    /// A number of bytes as above, or -1 for no limit.
    ByteSizeOrNone, "a size such as 512m, or -1", {
        "type": ["string", "integer"],
        "pattern": "^(-1|[0-9]+([.][0-9]+)? ?([bB]|[kmgtKMGT]|[kmgt]i?b|[kKMGT]B|[KMGT]iB)?)$",
        "minimum": -1,
        "examples": ["1g", -1],
    }
);
scalar!(
    /// A number of processors, in steps of a thousandth.
    Cpus, "a number of processors such as 0.5 or 2", {
        "type": ["number", "string"],
        "pattern": "^([0-9]+([.][0-9]{1,3})?|[.][0-9]{1,3})$",
        "minimum": 0,
        "maximum": 1_000_000,
        "examples": [0.5, 2],
    }
);
scalar!(
    /// A limit as the engine knows it: a number, a size such as `64m`, or `unlimited`; -1 is unlimited too.
    UlimitValue, "a number, a size such as 64m, or unlimited", {
        "type": ["integer", "string"],
        "minimum": -1,
        "pattern": "^([0-9]+([.][0-9]+)? ?([bB]|[kmgtKMGT]|[kmgt]i?b|[kKMGT]B|[KMGT]iB)?|unlimited|-1)$",
        "examples": [1024, "64m", "unlimited"],
    }
);
scalar!(
    /// A file mode in octal digits.
    FileMode, "octal digits such as \"1777\"", {
        "type": ["string", "integer"],
        "pattern": "^(0o?)?[0-7]{1,4}$",
        "minimum": 0,
        "maximum": 7777,
        "examples": ["1777", "0700"],
    }
);
scalar!(
    /// `os[/arch[/variant]]`.
    Platform, "a platform such as linux/arm64", {
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+(/[A-Za-z0-9_.-]+)?)?$",
        "examples": ["linux/amd64", "linux/arm64/v8"],
    }
);
scalar!(
    /// Published ports: `[[IP:]HOST:]CONTAINER[/PROTOCOL]`; HOST and CONTAINER may be ranges.
    PortText, "a text such as \"8080:80\", \"127.0.0.1:8080:80\" or \"53:53/udp\"", {
        "type": ["string", "integer"],
        "minLength": 1,
        "minimum": 1,
        "maximum": 65535,
        "examples": ["8080:80", "127.0.0.1:8080:80", "6060:6060/udp", "9090-9091:8080-8081"],
    }
);
scalar!(
    /// Where to listen: a port of 127.0.0.1, or an address with its port.
    ListenText, "a port, or an address such as \"127.0.0.1:8080\", \"0.0.0.0:80\" or \"[::1]:80\"", {
        "type": ["string", "integer"],
        "minLength": 1,
        "minimum": 1,
        "maximum": 65535,
        "examples": [8080, "0.0.0.0:80", "[::1]:80"],
    }
);
scalar!(
    /// A port, or a range `FIRST-LAST`.
    PortRange, "a port from 1 to 65535, or a range such as \"8000-8010\"", {
        "type": ["string", "integer"],
        "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$",
        "minimum": 1,
        "maximum": 65535,
        "examples": [8080, "8000-8010"],
    }
);
