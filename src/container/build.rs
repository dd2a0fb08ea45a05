//! Building an image: the context as a tar stream, the engine's words as progress.
//!
//! ```text
//!   folder ─ .dockerignore ─▶ tar, on a thread ─ pieces ─▶ engine ─▶ "Step 2/5 : RUN ..."
//! ```
//!
//! The context is never in memory as a whole: the thread waits while the engine is slower than the disk.
//!
//! Failure paths: a context or Dockerfile that is not there, a step that fails (with the last lines of what
//! it printed).

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::path::Path;

use bollard::body_try_stream;
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::engine::Engine;
use super::error::EngineError;
use super::identity;
use super::image::{ImageError, Tell};
use crate::model::container::BuildSpec;

mod context;

/// The name of a Dockerfile that stands in the manifest.
const INLINE: &str = ".stigmer.Dockerfile";

/// The size of a piece of the stream, in bytes.
const PIECE: usize = 64 * 1024;

/// Pieces that wait for the engine.
const WAITING: usize = 16;

/// Last lines of a failed step that are shown.
const LINES: usize = 5;

/// Builds an image and gives it its name.
pub(super) async fn build(
    engine: &Engine,
    name: &str,
    spec: &BuildSpec,
    platform: Option<&str>,
    tell: Tell<'_>,
) -> Result<(), ImageError> {
    let recipe = identity::recipe(spec, platform);
    let (spec, dockerfile) = &check(spec)?;
    tell(format!("building the image {name}"), true);
    let (client, place) = engine.handle()?;
    let args: HashMap<&str, &str> =
        spec.args.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut labels: HashMap<&str, &str> =
        spec.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    labels.insert(identity::RECIPE, &recipe);
    let mut options = BuildImageOptionsBuilder::new()
        .dockerfile(dockerfile)
        .t(name)
        .buildargs(&args)
        .labels(&labels)
        .nocache(spec.no_cache)
        .rm(true)
        .forcerm(true);
    if spec.pull {
        options = options.pull("true");
    }
    if let Some(target) = &spec.target {
        options = options.target(target);
    }
    if let Some(network) = &spec.network {
        options = options.networkmode(network);
    }
    if let Some(platform) = platform {
        options = options.platform(platform);
    }
    let body = body_try_stream(ReceiverStream::new(packed(spec.clone(), dockerfile.clone())));
    let mut stream = client.build_image(options.build(), None, Some(body));
    let mut last = VecDeque::new();
    loop {
        match stream.try_next().await {
            Ok(None) => break,
            Ok(Some(news)) => {
                if let Some(detail) = news.error_detail {
                    return Err(failed(name, &detail.message.unwrap_or_default(), &last));
                }
                for line in news.stream.iter().flat_map(|text| text.lines()) {
                    let line = line.trim();
                    if line.is_empty() {
                        continue;
                    }
                    if line.starts_with("Step ") {
                        tell(format!("building the image {name}: {line}"), false);
                        last.clear();
                    }
                    if last.len() == LINES {
                        last.pop_front();
                    }
                    last.push_back(line.to_owned());
                }
            }
            Err(error) => {
                let error = EngineError::of("build the image", &place, &error);
                engine.suspect(&error);
                return Err(match error {
                    EngineError::Refused { message, .. } => failed(name, &message, &last),
                    other => other.into(),
                });
            }
        }
    }
    tell(format!("built the image {name}"), true);
    Ok(())
}

/// The path of the Dockerfile in the context. One that lies outside of it goes in as if it stood in the
/// manifest.
fn check(spec: &BuildSpec) -> Result<(BuildSpec, String), ImageError> {
    let wrong =
        |message: String, hint: &str| Err(ImageError::Image { message, hint: hint.to_owned() });
    if !spec.context.is_dir() {
        let message = format!("the folder of the build, {}, is not there", spec.context.display());
        return wrong(
            message,
            "correct `build.context`; a path is seen from the manifest's folder",
        );
    }
    if spec.dockerfile_inline.is_some() {
        return Ok((spec.clone(), INLINE.to_owned()));
    }
    let dockerfile = spec.dockerfile.clone().unwrap_or_else(|| "Dockerfile".into());
    let path = spec.context.join(&dockerfile);
    if !path.is_file() {
        let message = format!("there is no {dockerfile} in {}", spec.context.display());
        return wrong(message, "correct `build.dockerfile`; it is seen from the build's context");
    }
    // Links are followed: what matters is where it lies.
    let place = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if place(&path).starts_with(place(&spec.context)) && !dockerfile.starts_with('/') {
        return Ok((spec.clone(), dockerfile));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let spec = BuildSpec { dockerfile_inline: Some(text), ..spec.clone() };
            Ok((spec, INLINE.to_owned()))
        }
        Err(error) => wrong(format!("cannot read {}: {error}", path.display()), "is it yours?"),
    }
}

fn failed(name: &str, message: &str, last: &VecDeque<String>) -> ImageError {
    let lines: Vec<&str> = last.iter().map(String::as_str).collect();
    let before = if lines.is_empty() { String::new() } else { format!(" ({})", lines.join(" | ")) };
    ImageError::Image {
        message: format!("the image {name} cannot be built: {message}{before}"),
        hint: "correct the Dockerfile; `docker build` in its context shows the same".into(),
    }
}

/// The context, piece by piece.
fn packed(spec: BuildSpec, dockerfile: String) -> mpsc::Receiver<Result<Bytes, io::Error>> {
    let (pieces, stream) = mpsc::channel(WAITING);
    let packing = crate::blocking::spawn(move || {
        let mut out = Pieces { pieces: pieces.clone(), buffer: Vec::with_capacity(PIECE) };
        let packing = context::pack(&spec, &dockerfile, &mut out).and_then(|()| out.flush());
        if let Err(error) = packing {
            // Nobody may be listening any more.
            drop(pieces.blocking_send(Err(error)));
        }
    });
    // It tells by the channel what comes of it.
    drop(packing);
    stream
}

/// Writes into the stream.
struct Pieces {
    pieces: mpsc::Sender<Result<Bytes, io::Error>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
