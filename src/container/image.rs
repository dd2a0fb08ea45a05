//! Images: there already, fetched, or built.
//!
//! ```text
//!   policy     there?   declared `build`        otherwise
//!   missing    yes      use it, or build if     use it
//!                       built by another recipe
//!              no       build                   fetch
//!   always     -        build                   fetch; if that fails and it is there, use it
//!   never      no       error                   error
//!   build      -        build                   (the manifest refuses it)
//! ```
//!
//! A recipe is what the manifest says below `build`. What an image was built by stands in a label of it; one
//! without that label was built by somebody else, who knows what it is.
//!
//! Fetching and building take as long as they take: they have no limit of their own, and end when the launch
//! is withdrawn, because dropping the request makes the engine give up.
//!
//! Failure paths: a registry that cannot be reached, an image that is not there, a login that is missing: the
//! engine's words, with what to do.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::build;
use super::engine::{Engine, QUICK};
use super::error::EngineError;
use super::identity;
use crate::model::container::{ContainerSpec, PullPolicy};

mod credentials;

/// Progress is told at most this often.
const PAUSE: Duration = Duration::from_millis(500);

/// What has to be known of an image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// Where it wants volumes.
    pub volumes: Vec<String>,
    /// The digest of what it was built by, if it was built here.
    recipe: Option<String>,
}

impl Image {
    /// Whether it came of something else than what is declared now.
    fn is_outdated(&self, spec: &ContainerSpec) -> bool {
        let Some((made_by, build)) = self.recipe.as_ref().zip(spec.build.as_ref()) else {
            return false;
        };
        *made_by != identity::recipe(build, spec.platform.as_deref())
    }
}

/// Why there is no image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// The engine is the trouble.
    Engine(EngineError),
    /// The image is.
    Image {
        /// In plain words.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl From<EngineError> for ImageError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Is told what is going on; true for what is worth an event.
pub type Tell<'a> = &'a mut (dyn FnMut(String, bool) + Send);

/// Sees to it that the image of a container is there.
///
/// # Errors
/// It is not, and cannot be had.
pub async fn ensure(
    engine: &Engine,
    spec: &ContainerSpec,
    tell: Tell<'_>,
) -> Result<Image, ImageError> {
    let there = inspect(engine, &spec.image).await?;
    let name = &spec.image;
    match (spec.pull_policy, &spec.build, there) {
        (PullPolicy::Never, _, Some(image)) => Ok(image),
        (PullPolicy::Missing, _, Some(image)) if !image.is_outdated(spec) => Ok(image),
        (PullPolicy::Never, _, None) => Err(ImageError::Image {
            message: format!("the image {name} is not there, and its pull policy is never"),
            hint: format!("fetch or load it (`docker pull {name}`), or change `pull_policy`"),
        }),
        (PullPolicy::Missing | PullPolicy::Always | PullPolicy::Build, Some(recipe), _) => {
            build::build(engine, name, recipe, spec.platform.as_deref(), tell).await?;
            found(engine, name).await
        }
        (PullPolicy::Missing | PullPolicy::Always | PullPolicy::Build, None, there) => {
            match pull(engine, spec, tell).await {
                Ok(()) => found(engine, name).await,
                // What is there was meant to be renewed: an old one is better than none.
                Err(ImageError::Image { message, .. }) if there.is_some() => {
                    tell(format!("{message}; the image that is there is used"), true);
                    Ok(there.unwrap_or_default())
                }
                Err(error) => Err(error),
            }
        }
    }
}

async fn found(engine: &Engine, name: &str) -> Result<Image, ImageError> {
    inspect(engine, name).await?.ok_or_else(|| ImageError::Image {
        message: format!("the image {name} is not there, although it has just been made ready"),
        hint: "does its name or its platform match what was fetched?".into(),
    })
}

async fn inspect(engine: &Engine, name: &str) -> Result<Option<Image>, EngineError> {
    let looked = engine
        .ask("inspect the image", QUICK, async |client| client.inspect_image(name).await)
        .await;
    match looked {
        Ok(found) => {
            let config = found.config.unwrap_or_default();
            let recipe = config.labels.and_then(|mut labels| labels.remove(identity::RECIPE));
            Ok(Some(Image { volumes: config.volumes.unwrap_or_default(), recipe }))
        }
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn pull(engine: &Engine, spec: &ContainerSpec, tell: Tell<'_>) -> Result<(), ImageError> {
    let name = spec.image.as_str();
    let began = Instant::now();
    tell(format!("fetching the image {name}"), true);
    let (client, place) = engine.handle()?;
    let mut options = CreateImageOptionsBuilder::new().from_image(name);
    // Without a tag an engine would fetch all of them.
    if !has_tag(name) {
        options = options.tag("latest");
    }
    if let Some(platform) = &spec.platform {
        options = options.platform(platform);
    }
    let credentials = credentials::of(name).await;
    let mut stream = client.create_image(Some(options.build()), None, credentials);
    let mut layers = Layers::default();
    let mut told = Instant::now();
    loop {
        match stream.try_next().await {
            Ok(None) => break,
            Ok(Some(news)) => {
                if let Some(detail) = news.error_detail {
                    return Err(missing(name, &detail.message.unwrap_or_default()));
                }
                let amount = news.progress_detail.and_then(|detail| {
                    Some((u64::try_from(detail.current?).ok()?, u64::try_from(detail.total?).ok()?))
                });
                layers.note(news.id.as_deref(), news.status.as_deref(), amount);
                if told.elapsed() >= PAUSE {
                    told = Instant::now();
                    tell(format!("fetching the image {name}{}", layers.in_words()), false);
                }
            }
            Err(error) => {
                let error = EngineError::of("fetch the image", &place, &error);
                engine.suspect(&error);
                return Err(match error {
                    EngineError::Refused { message, .. } => missing(name, &message),
                    other => other.into(),
                });
            }
        }
    }
    let took = crate::model::event::human_duration(began.elapsed());
    tell(format!("fetched the image {name} in {took}"), true);
    Ok(())
}

/// Whether a name says which image of its repository is meant.
fn has_tag(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.contains(':') || name.contains('@')
}

/// A registry's refusal.
fn missing(name: &str, message: &str) -> ImageError {
    let lower = message.to_lowercase();
    let hint = if lower.contains("denied") || lower.contains("unauthorized") {
        format!(
            "is the name right? If it needs a login: `docker login`, as the daemon's user; then \
             `docker pull {name}` shows whether it works"
        )
    } else if lower.contains("not found") || lower.contains("unknown") {
        "is the name right, and the tag?".to_owned()
    } else {
        format!(
            "is the registry reachable? `docker pull {name}` shows it, or load the image by hand"
        )
    };
    ImageError::Image { message: format!("the image {name} cannot be fetched: {message}"), hint }
}

/// How far the layers of an image are.
#[derive(Debug, Default)]
struct Layers(std::collections::HashMap<String, (u64, u64)>);

impl Layers {
    fn note(&mut self, layer: Option<&str>, status: Option<&str>, amount: Option<(u64, u64)>) {
        let (Some(layer), Some(status)) = (layer, status) else { return };
        match (status, amount) {
            ("Downloading", Some(amount)) => {
                self.0.insert(layer.to_owned(), amount);
            }
            ("Download complete" | "Pull complete", _) => {
                if let Some(known) = self.0.get_mut(layer) {
                    known.0 = known.1;
                }
            }
            _ => {}
        }
    }

    /// `: 12.3 MB of 45.6 MB`; nothing before anything is known.
    fn in_words(&self) -> String {
        let (have, all) = self.0.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if all == 0 {
            return String::new();
        }
        format!(
            ": {} of {}",
            bytesize::ByteSize(have).display().si(),
            bytesize::ByteSize(all).display().si()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert!(has_tag("postgres:16"));
        assert!(has_tag("host:5000/a/b@sha256:00"));
        assert!(!has_tag("host:5000/a/b"));
        assert!(!has_tag("postgres"));
    }

    #[test]
    fn layers_add_up() {
        let mut layers = Layers::default();
        assert_eq!(layers.in_words(), "");
        layers.note(Some("a"), Some("Downloading"), Some((1_000_000, 4_000_000)));
        layers.note(Some("b"), Some("Downloading"), Some((2_000_000, 2_000_000)));
        assert_eq!(layers.in_words(), ": 3.0 MB of 6.0 MB");
        layers.note(Some("a"), Some("Pull complete"), None);
        assert_eq!(layers.in_words(), ": 6.0 MB of 6.0 MB");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let ImageError::Image { hint, .. } = missing("x", "pull access denied for x") else {
            panic!()
        };
        assert!(hint.contains("docker login"));
        let ImageError::Image { hint, .. } = missing("x", "dial tcp: no route") else { panic!() };
        assert!(hint.contains("registry"));
    }
}
