//! The run has lasted for a while: the plainest sign that a program did not fall over at its start.
//!
//! Measured on the monotonic clock from the launch; setting the date changes nothing.

use std::time::Duration;

use super::{Kind, Run, Target};
use crate::model::event::human_duration;

pub(super) struct MinUptime {
    pub(super) wanted: Duration,
}

pub(super) fn describe(wanted: Duration) -> String {
    format!("min_uptime {}", human_duration(wanted))
}

impl Kind for MinUptime {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            let up = target.launched.elapsed();
            if up >= self.wanted {
                return Ok(());
            }
            Err(format!("up for {} of {}", human_duration(up), human_duration(self.wanted)).into())
        })
    }
}
