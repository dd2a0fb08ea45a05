//! How an image is built, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::schema::pairs::Pairs;
use crate::manifest::schema::scalars::{FilePath, Word};
use crate::manifest::schema::shape::shaped;

/// How an image is built, or just the folder that is sent to the engine.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum BuildOrContext {
    /// All of it.
    Full(Box<Build>),
    /// Just the folder.
    Context(FilePath),
}

shaped!(BuildOrContext { map => Full(Box<Build>), scalar => Context(FilePath) });

/// How an image is built.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Build {
    /// The folder that is sent to the engine. Default: the folder of the manifest.
    pub(in crate::manifest) context: Option<FilePath>,
    /// The Dockerfile, as seen from the context. Default: Dockerfile.
    pub(in crate::manifest) dockerfile: Option<Word>,
    /// The text of the Dockerfile itself.
    #[schemars(length(min = 1))]
    pub(in crate::manifest) dockerfile_inline: Option<String>,
    /// Build arguments. A name without a value takes that of the shell of the apply.
    pub(in crate::manifest) args: Option<Pairs>,
    /// The stage that is built. Default: the last.
    pub(in crate::manifest) target: Option<Word>,
    /// Labels of the image.
    pub(in crate::manifest) labels: Option<Pairs>,
    /// The network of the build's steps. Default: that of the engine.
    pub(in crate::manifest) network: Option<Word>,
    /// Do not use the engine's cache. Default: false.
    pub(in crate::manifest) no_cache: Option<bool>,
    /// Fetch the images that it is built upon, also where they are there. Default: false.
    pub(in crate::manifest) pull: Option<bool>,
}
