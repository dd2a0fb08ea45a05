//! All of several checks, in order; fails with its first failure and names it.

use super::{Kind, Reach, Run, Target, build, describe as describe_one};
use crate::model::spec::Check;

pub(super) struct All(Vec<(String, Box<dyn Kind>)>);

impl All {
    /// # Errors
    /// It is empty, which would pass without having looked at anything, or one of its checks is wrong.
    pub(super) fn new(checks: &[Check], reach: &Reach) -> Result<Self, String> {
        if checks.is_empty() {
            return Err("`all` holds no check".to_owned());
        }
        let named = |check| build(check, reach).map(|kind| (describe_one(check), kind));
        checks.iter().map(named).collect::<Result<_, _>>().map(Self)
    }
}

pub(super) fn describe(checks: &[Check]) -> String {
    let names: Vec<_> = checks.iter().map(describe_one).collect();
    format!("all of: {}", names.join(", "))
}

impl Kind for All {
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a> {
        Box::pin(async move {
            for (name, kind) in &mut self.0 {
                let outcome = kind.run(target).await;
                outcome.map_err(|failure| failure.map(|message| format!("{name}: {message}")))?;
            }
            Ok(())
        })
    }
}
