use std::fs;

use super::*;
use crate::machine::Input;
use crate::model::{RunId, Severity, Time};

fn component() -> Component {
    let mut component = Component::new(Arc::new(ComponentSpec::external()), 3);
    let _ = component.step(Time::from_secs(5), Input::Start, &mut || RunId(9));
    component
}

fn happened(at: i64, component: &str) -> NewEvent {
    NewEvent {
        at,
        project: "p".into(),
        component: component.into(),
        replica: 0,
        kind: "exited".into(),
        severity: Severity::Warning,
        message: format!("exit {at}"),
    }
}

#[test]
fn s38_what_is_committed_is_there_for_the_next_engine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let instance = InstanceId::new("p", "api", 1);
    let component = component();
    let record = ProjectRecord { generation: 3, ..ProjectRecord::default() };
    let (mut store, opened) = Store::open(&path).unwrap();
    assert_eq!(opened, Opened::Fresh);
    let mut batch = Batch::default();
    batch.boot_id("boot");
    batch.next_run(10);
    batch.put_project("p", &record).unwrap();
    batch.put_component(&instance, &component).unwrap();
    store.commit(&batch).unwrap();
    // As after a kill: the first connection is never closed in order.
    std::mem::forget(store);

    let (store, opened) = Store::open(&path).unwrap();
    assert_eq!(opened, Opened::Existing);
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.boot_id.as_deref(), Some("boot"));
    assert_eq!(snapshot.next_run, 10);
    assert_eq!(snapshot.projects["p"], record);
    let [(found, spec, state)] = &*snapshot.components else { panic!("one component") };
    assert_eq!(*found, instance);
    assert_eq!(state.clone().restored(spec.clone(), Time::from_secs(5)), component);
}

#[test]
fn a_state_is_written_without_its_spec_and_a_removed_row_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(&folder.path().join("state.db")).unwrap();
    let instance = InstanceId::new("p", "api", 0);
    let fresh = Component::new(Arc::new(ComponentSpec::external()), 3);
    let mut batch = Batch::default();
    batch.put_component(&instance, &fresh).unwrap();
    batch.put_state(&instance, &component()).unwrap();
    store.commit(&batch).unwrap();
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.components[0].2.run(), Some(RunId(9)));
    let mut batch = Batch::default();
    batch.remove_component(&instance);
    batch.remove_project("p");
    store.commit(&batch).unwrap();
    assert!(store.load().unwrap().components.is_empty());
}

#[test]
fn events_are_filtered_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(&folder.path().join("state.db")).unwrap();
    for round in 0..12 {
        let mut batch = Batch::default();
        for at in 0..1_000 {
            batch.event(happened(round * 1_000 + at, if at % 2 == 0 { "a" } else { "b" }));
        }
        store.commit(&batch).unwrap();
    }
    let all = store.events(&EventFilter::default()).unwrap();
    assert!(all.len() >= 10_000 && all.len() < 10_500 + 1_000, "{}", all.len());
    assert_eq!(all.last().unwrap().event.at, 11_999);
    assert!(all.is_sorted_by_key(|record| record.id));
    let of_a = EventFilter {
        instance: Some(InstanceId::new("p", "a", 0)),
        limit: Some(3),
        ..EventFilter::default()
    };
    let times: Vec<i64> =
        store.events(&of_a).unwrap().iter().map(|record| record.event.at).collect();
    assert_eq!(times, [11_994, 11_996, 11_998]);
    let late = EventFilter {
        project: Some("p".into()),
        since: Some(11_990),
        after: Some(all[all.len() - 3].id),
        ..EventFilter::default()
    };
    assert_eq!(store.events(&late).unwrap().len(), 2);
    let other = EventFilter { project: Some("q".into()), ..EventFilter::default() };
    assert!(store.events(&other).unwrap().is_empty());
}

#[test]
fn a_damaged_file_is_kept_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    fs::write(&path, "this is no database, and long enough to be told from one by its head ....")
        .unwrap();
    let (store, opened) = Store::open(&path).unwrap();
    let Opened::Replaced { kept } = opened else { panic!("{opened:?}") };
    assert!(fs::read_to_string(kept).unwrap().starts_with("this is no database"));
    assert!(store.load().unwrap().components.is_empty());
}

#[test]
fn a_newer_layout_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (store, _) = Store::open(&path).unwrap();
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = Store::open(Path::new("/nonexistent/state.db")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/state.db"), "{error}");
}
