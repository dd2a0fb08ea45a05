use std::fs;
use std::path::Path;

use super::*;
use crate::machine::Input;
use crate::model::{Body, RunId, Severity, Time};

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
    batch.put_project("p", &record);
    batch.put_component(&instance, &component);
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
    let launched = component();
    batch.put_component(&instance, &fresh);
    let [row] = *store.commit(&batch).unwrap().rows else { panic!("one row") };
    let mut batch = Batch::default();
    batch.put_state(&instance, row, &launched);
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
        let event = |at: i64| happened(round * 1_000 + at, if at % 2 == 0 { "a" } else { "b" });
        let events: Vec<_> = (0..1_000).map(event).collect();
        batch.events(&events);
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

/// What a stigmer of layout 1 made: its statements and its rows, word for word.
const OF_LAYOUT_1: &str = r#"
    PRAGMA journal_mode = WAL;
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE projects (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE components (
        project TEXT NOT NULL, component TEXT NOT NULL, replica INTEGER NOT NULL,
        spec TEXT NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (project, component, replica)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL,
        project TEXT NOT NULL, component TEXT NOT NULL, replica INTEGER NOT NULL,
        kind TEXT NOT NULL, severity TEXT NOT NULL, message TEXT NOT NULL
    );
    CREATE INDEX events_of ON events (project, component, id);
    PRAGMA user_version = 1;
    INSERT INTO meta VALUES ('boot_id', '47ba0ec9'), ('next_run', '3');
    INSERT INTO projects VALUES ('shop', '{"manifest":"/shop/stigmer.yaml","variables":{"PORT":"80"},
        "base_env":{"PATH":"/bin"},"profiles":[],"name_override":null,
        "watched":["/shop/stigmer.yaml"],"sha256":"ab","generation":4,"loaded_at":5,"info":[["a","b"]]}');
    INSERT INTO events VALUES (7, 11, 'shop', 'api', 1, 'exited', 'warning', 'exited: exit 1');
"#;

fn of_layout_1(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(OF_LAYOUT_1).unwrap();
    let spec = include_str!("layout-1-spec.json").trim();
    let state = include_str!("layout-1-state.json").trim();
    connection
        .execute(
            "INSERT INTO components VALUES ('shop', 'api', 1, ?1, ?2)",
            rusqlite::params![spec, state],
        )
        .unwrap();
    // As after a kill.
    std::mem::forget(connection);
}

fn user_version(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_state_of_layout_1_is_brought_up_to_date_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    of_layout_1(&path);
    let (mut store, opened) = Store::open(&path).unwrap();
    let Opened::Migrated { from: 1, kept } = opened else { panic!("{opened:?}") };
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.unreadable, Vec::<String>::new());
    assert_eq!((snapshot.boot_id.as_deref(), snapshot.next_run), (Some("47ba0ec9"), 3));
    assert_eq!(snapshot.projects["shop"].generation, 4);
    assert_eq!(snapshot.projects["shop"].variables["PORT"], "80");
    let [(instance, spec, component)] = &*snapshot.components else { panic!("one component") };
    assert_eq!(*instance, InstanceId::new("shop", "api", 1));
    assert_eq!(component.run(), Some(RunId(2)));
    assert_eq!(component.view(crate::model::Time::ZERO).body, Some(&Body::Process { pid: 32_233 }));
    assert_eq!(spec.stop.timeout, std::time::Duration::from_secs(2));
    assert_eq!(store.events(&EventFilter::default()).unwrap()[0].id, 7);
    // It is written as ever, and numbers of events go on.
    let mut batch = Batch::default();
    let events = [happened(12, "api")];
    batch.events(&events);
    assert_eq!(store.commit(&batch).unwrap().events, 8..9);
    drop(store);
    assert_eq!((user_version(&path), user_version(&kept)), (LAYOUT, 1), "the old one is kept");
    assert_eq!(Store::open(&path).unwrap().1, Opened::Existing);
}

#[test]
fn a_state_that_cannot_be_brought_up_to_date_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    of_layout_1(&path);
    // The step to layout 2 meets a row that must not be there.
    let connection = Connection::open(&path).unwrap();
    connection.execute("INSERT INTO meta VALUES ('written_by', 'somebody')", []).unwrap();
    drop(connection);
    assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
    assert_eq!(user_version(&path), 1);
}

#[test]
fn a_newer_layout_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (store, _) = Store::open(&path).unwrap();
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    let writer = "UPDATE meta SET value = 'stigmer 9.0.0' WHERE key = 'written_by'";
    store.connection.execute(writer, []).unwrap();
    // As after a kill: part of it is in the log alone.
    std::mem::forget(store);
    let files = || -> Vec<_> {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            // The index of the log is memory that all who read it share.
            .filter(|path| !path.to_string_lossy().ends_with("-shm"))
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    assert!(before.len() > 1, "there is a log");
    let refused = Store::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 99, .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("layout 99") && said.contains("stigmer 9.0.0"), "{said}");
    assert_eq!(files(), before);
}

/// A store with one component of project `p`, and a backup of it.
fn with_backup(folder: &Path) -> PathBuf {
    let path = folder.join("state.db");
    let (mut store, _) = Store::open(&path).unwrap();
    let record = ProjectRecord::default();
    let mut batch = Batch::default();
    batch.boot_id("boot");
    batch.put_project("p", &record);
    let (instance, component) = (InstanceId::new("p", "api", 0), component());
    batch.put_component(&instance, &component);
    store.commit(&batch).unwrap();
    backup::make(&path).unwrap();
    // What came after it is lost with the database.
    let mut batch = Batch::default();
    batch.put_project("later", &record);
    store.commit(&batch).unwrap();
    // All of it into the one file, or the log makes up for what is missing there.
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    store.connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    std::mem::forget(store);
    path
}

fn restored(path: &Path, from: &str) -> Option<PathBuf> {
    let (store, opened) = Store::open(path).unwrap();
    let Opened::Restored { from: found, kept } = opened else { panic!("{opened:?}") };
    assert!(found.to_string_lossy().ends_with(from), "{}", found.display());
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.projects.keys().collect::<Vec<_>>(), ["p"]);
    assert_eq!(snapshot.components.len(), 1);
    kept
}

#[test]
fn fault_14_the_last_good_copy_takes_the_place_of_a_state_that_is_damaged_cut_short_or_gone() {
    type Damage = (&'static str, fn(&Path), bool);
    let damages: [Damage; 6] = [
        ("no database", |path| fs::write(path, "x".repeat(5000)).unwrap(), true),
        (
            "cut short",
            |path| {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(8192 + 100).unwrap();
            },
            true,
        ),
        (
            "zeros in the middle",
            |path| {
                use std::os::unix::fs::FileExt;
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&[0; 4096], 4096).unwrap();
            },
            true,
        ),
        (
            "a database with nothing in it",
            |path| {
                fs::remove_file(path).unwrap();
                let connection = Connection::open(path).unwrap();
                connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
            },
            false,
        ),
        ("empty", |path| fs::write(path, "").unwrap(), false),
        ("gone", |path| fs::remove_file(path).unwrap(), false),
    ];
    for (name, damage, is_kept) in damages {
        let folder = tempfile::tempdir().unwrap();
        let path = with_backup(folder.path());
        damage(&path);
        let kept = restored(&path, "state.db.backup-1");
        assert_eq!(kept.is_some(), is_kept, "{name}");
        assert_eq!(Store::open(&path).unwrap().1, Opened::Existing, "{name}");
    }
}

#[test]
fn fault_14_a_copy_that_is_damaged_itself_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_backup(folder.path());
    let backups = ["state.db.backup-1", "state.db.backup-2"].map(|name| folder.path().join(name));
    fs::copy(&backups[0], &backups[1]).unwrap();
    fs::write(&path, "nothing of a database").unwrap();
    fs::write(&backups[0], "neither").unwrap();
    restored(&path, "state.db.backup-2");
    // Without any there is nothing but a new beginning.
    fs::write(&path, "nothing of a database").unwrap();
    fs::write(&backups[1], "").unwrap();
    assert!(matches!(Store::open(&path).unwrap().1, Opened::Replaced { .. }));
}

#[test]
fn a_copy_is_whole_and_the_one_before_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_backup(folder.path());
    let backups = ["state.db.backup-1", "state.db.backup-2"].map(|name| folder.path().join(name));
    assert!(backups[0].exists() && !backups[1].exists());
    backup::make(&path).unwrap();
    let count = |path: &Path| -> i64 {
        let connection = Connection::open(path).unwrap();
        connection.query_row("SELECT count(*) FROM projects", [], |row| row.get(0)).unwrap()
    };
    // What was committed to the log alone is in it.
    assert_eq!(backups.each_ref().map(|path| count(path)), [2, 1]);
    assert!(!folder.path().join("state.db.backup-draft").exists());
}

#[test]
fn neither_a_copy_nor_a_checkpoint_keeps_a_descriptor_that_was_not_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let open = || {
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let ours = all.filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(folder.path()))
        });
        ours.count()
    };
    let (mut store, _) = Store::open(&path).unwrap();
    let events = [happened(1, "api")];
    let mut batch = Batch::default();
    batch.events(&events);
    store.commit(&batch).unwrap();
    let before = open();
    assert!(before > 0);
    for _ in 0..2 {
        copy(&path, &folder.path().join("copy")).unwrap();
        assert_eq!(open(), before);
        checkpoint::make(&path, checkpoint::identity(&path).ok()).unwrap();
        assert_eq!(open(), before);
    }
}

#[test]
fn what_is_not_our_own_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    for name in ["state.db", "state.db-wal"] {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&elsewhere, home.path().join(name)).unwrap();
        let refused = Store::open(&home.path().join("state.db")).unwrap_err();
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = Store::open(Path::new("/nonexistent/state.db")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/state.db"), "{error}");
}
