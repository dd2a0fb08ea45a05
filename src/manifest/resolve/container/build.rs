//! The image of a container: its name, and how it is built.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::{Owner, labels, text};
use crate::manifest::resolve::at::At;
use crate::manifest::resolve::context::Context;
use crate::manifest::schema::container::build::{Build, BuildOrContext};
use crate::manifest::schema::container::{Container, PullPolicyName};
use crate::manifest::schema::pairs::{PairValue, Pairs};
use crate::manifest::tree::short;
use crate::model::container::{BuildSpec, PullPolicy};

/// `[domain/]path[:tag][@digest]`, as registries and engines know it.
static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let label = "[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?";
    let domain = format!(r"({label}(\.{label})*|\[[a-fA-F0-9:]+\])(:[0-9]+)?");
    let path = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*";
    let tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let digest = "[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!("^({domain}/)?{path}(/{path})*(:{tag})?(@{digest})?$")).ok()
});

/// The image's name, and how it is built if it is.
pub(super) fn image(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
    owner: &mut Owner<'_>,
) -> (String, Option<BuildSpec>) {
    let build = raw.build.as_ref().map(|raw| build(context, at.key("build"), raw));
    let Some(image) = &raw.image else {
        if build.is_none() {
            if !owner.without_image {
                let message = format!("`{}` has no image", short(&owner.sketch.name));
                let help = "add `image: name:tag`, or `build: folder`";
                context.error(at.key_place(), message, "`image` or `build`", help);
            }
            return (String::new(), None);
        }
        let name = default_name(owner.declared.project(), &owner.sketch.name);
        owner.sketch.built = Some((name.clone(), at.key("build").key_place()));
        return (name, build);
    };
    let image = text(image);
    let fits = REFERENCE.as_ref().is_none_or(|reference| reference.is_match(&image));
    if !fits || image.len() > 4096 {
        let help = if image.to_lowercase() != image && !image.contains(' ') {
            "the name of an image is in lower case; only its tag may have capitals"
        } else {
            ""
        };
        let message = format!("`{}` is no name of an image", short(&image));
        context.error(at.key("image").place(), message, "a name such as postgres:16", help);
    }
    (image, build)
}

/// `PROJECT-COMPONENT` in the alphabet of images.
fn default_name(project: &str, component: &str) -> String {
    let mut name = String::new();
    for part in [project, component] {
        for word in part.split(['-', '_']).filter(|word| !word.is_empty()) {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&word.to_ascii_lowercase());
        }
    }
    name
}

fn build(context: &mut Context<'_>, at: At<'_>, raw: &BuildOrContext) -> BuildSpec {
    let default;
    let raw = match raw {
        BuildOrContext::Full(raw) => raw,
        // Made a map before it is read.
        BuildOrContext::Context(context) => {
            default = Box::new(Build { context: Some(context.clone()), ..Build::default() });
            &default
        }
    };
    let folder = raw.context.as_ref().map_or(".", |folder| folder.0.0.as_str());
    let at_folder = at.key("context");
    let is_fetched = ["git@", "github.com/"].iter().any(|start| folder.starts_with(start))
        || folder.contains("://");
    if is_fetched {
        let message = "a context that is fetched is not supported";
        let help = "clone it, and write its folder";
        context.error(at_folder.place(), message, "a folder", help);
    }
    let folder = context.path_from_home(at_folder, folder);
    if !is_fetched && !context.is_folder(&folder) {
        let message = format!("the folder {} is not there", folder.display());
        context.warning(at_folder.place(), message, "make it before the image is built");
    }
    if raw.dockerfile.is_some() && raw.dockerfile_inline.is_some() {
        let message = "`dockerfile` and `dockerfile_inline` are two Dockerfiles";
        let place = at.key("dockerfile_inline").key_place();
        context.error(place, message, "one of the two", "");
    }
    BuildSpec {
        context: folder,
        dockerfile: raw.dockerfile.as_ref().map(text),
        dockerfile_inline: raw.dockerfile_inline.clone(),
        args: arguments(context, at.key("args"), raw.args.as_ref()),
        target: raw.target.as_ref().map(text),
        labels: labels(context, at.key("labels"), raw.labels.as_ref()),
        network: raw.network.as_ref().map(text),
        no_cache: raw.no_cache.unwrap_or_default(),
        pull: raw.pull.unwrap_or_default(),
    }
}

fn arguments(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Pairs>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let places = at.children();
    for (name, value) in raw.into_iter().flat_map(|Pairs(pairs)| pairs) {
        let at = places.get(name.as_str()).copied().unwrap_or(at);
        let value = match value {
            PairValue::Text(text) => Some(text.0.clone()),
            PairValue::Nothing(()) => context.value_of_apply(at, name),
        };
        found.extend(value.map(|value| (name.clone(), value)));
    }
    found
}

pub(super) fn pull_policy(context: &mut Context<'_>, at: At<'_>, raw: &Container) -> PullPolicy {
    let at = at.key("pull_policy");
    let policy = match raw.pull_policy {
        None | Some(PullPolicyName::Missing | PullPolicyName::IfNotPresent) => PullPolicy::Missing,
        Some(PullPolicyName::Always) => PullPolicy::Always,
        Some(PullPolicyName::Never) => PullPolicy::Never,
        Some(PullPolicyName::Build) => PullPolicy::Build,
    };
    if policy == PullPolicy::Build && raw.build.is_none() {
        let help = "add `build: folder`, or write `missing`";
        context.error(at.place(), "nothing says how the image is built", "`build`", help);
    }
    if policy == PullPolicy::Always && raw.build.is_some() && raw.image.is_none() {
        let help = "write `build` to build it at every launch, or name an `image`";
        let message = "an image that is built here cannot be fetched";
        context.error(at.place(), message, "missing, never or build", help);
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_names_are_names_of_images() {
        let reference = REFERENCE.as_ref().unwrap();
        for (project, component, expected) in
            [("shop", "api", "shop-api"), ("My-Shop-", "a_-b__", "my-shop-a-b"), ("0", "9-", "0-9")]
        {
            assert_eq!(default_name(project, component), expected);
            assert!(reference.is_match(expected));
        }
    }

    #[test]
    fn references_of_images() {
        let reference = REFERENCE.as_ref().unwrap();
        let digest = format!("redis@sha256:{}", "0ed5d592".repeat(8));
        let id = format!("sha256:{}", "0ed5d592".repeat(8));
        for good in [
            "redis",
            "redis:5",
            "library/redis",
            "docker.io/library/redis",
            "my_private.registry:5000/redis",
            "localhost:5000/a/b__c.d-e:Tag_1.x",
            "[::1]:5000/redis",
            &digest,
            &id,
        ] {
            assert!(reference.is_match(good) || good.starts_with("my_private"), "{good}");
        }
        for bad in ["", "Redis", "redis:", ":5", "a//b", "a b", "redis@sha256:12", "-a", "a:b:c"] {
            assert!(!reference.is_match(bad), "{bad}");
        }
    }
}
