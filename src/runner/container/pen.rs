//! Who writes the log of a container: one pen for each instance, which is put down while the log is
//! emptied (see `logs::Stillness`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;

use crate::logs::{Held, Holding, Stillness};
use crate::model::InstanceId;

/// Held while something is written.
pub(super) type Pen = Arc<Mutex<()>>;

/// All pens.
#[derive(Clone, Default)]
pub struct Pens(Arc<std::sync::Mutex<HashMap<InstanceId, Pen>>>);

impl fmt::Debug for Pens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pens")
    }
}

impl Pens {
    /// The pen of an instance.
    pub(super) fn of(&self, instance: &InstanceId) -> Pen {
        let mut pens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody writes with any more is not kept.
        pens.retain(|known, pen| known == instance || Arc::strong_count(pen) > 1);
        pens.entry(instance.clone()).or_default().clone()
    }
}

impl Stillness for Pens {
    fn hold(&self, instance: &InstanceId) -> Holding {
        let pen = self.of(instance);
        Box::pin(async move { Ok(Box::new(pen.lock_owned().await) as Held) })
    }
}
