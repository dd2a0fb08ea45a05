use std::fs;
use std::sync::Arc;

use super::*;
use crate::logs::rotate::{Held, Holding, Stillness};
use crate::logs::watch::system_clock;
use crate::model::spec::LogSpec;

struct Nobody;

impl Stillness for Nobody {
    fn hold(&self, _: &InstanceId) -> Holding {
        Box::pin(async { Ok(Box::new(()) as Held) })
    }
}

/// A second rotation that comes to nothing gave back what the first one had borrowed: the log was looked at,
/// and its index opened anew, while the first one was in the middle of its work.
#[tokio::test]
async fn a_log_that_is_forgotten_and_known_again_has_one_rotation_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.log");
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let (_commands, inbox) = mpsc::unbounded_channel();
    let (jobs, mut asked) = mpsc::unbounded_channel();
    let (clock, problems) = (system_clock(), Problems::default());
    let mut task = Task::new(inbox, Subscriptions::default(), clock, jobs, problems);
    let api = InstanceId::new("shop", "api", 0);
    let watch = |max_size| {
        let keep =
            Keep { spec: LogSpec { max_size, ..LogSpec::default() }, writers: Arc::new(Nobody) };
        Command::Watch(api.clone(), path.clone(), Some(keep))
    };

    task.obey(watch(65_536));
    asked.try_recv().unwrap();
    let writer = task.lend(&api, &path).unwrap();
    task.obey(Command::Unwatch(api.clone()));
    task.obey(watch(65_536));
    task.obey(watch(70_000));
    assert!(asked.try_recv().is_err(), "a second one while the first is under way");
    assert!(task.lend(&api, &path).is_none());

    let (path, writer, next) = (path.clone(), Some(writer), Next::Look);
    task.obey(Command::GiveBack { path: path.clone(), writer, next, expires: None });
    asked.try_recv().unwrap();
    assert!(task.lend(&api, &path).is_some());
}
