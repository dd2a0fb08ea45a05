//! The container runs, and its engine's own health check does not say otherwise (S34).
//!
//! Restarting, Paused and Dead are not running. Without a health check running is enough; one that is
//! still in its start period says nothing yet.

use super::{Kind, Run, Target};

pub(super) struct Container;

impl Kind for Container {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            match &target.container {
                Some(container) => container.look(true).await,
                None => Err("it has no container that stigmer knows".into()),
            }
        })
    }
}
