//! Measurements, not tests: run them with
//! `cargo test --release --test logs measure -- --ignored --nocapture --test-threads 1`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Logs, instance, seen};

/// Appends lines for a second; bytes per second.
fn write(path: PathBuf, line: usize) -> f64 {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let mut text = vec![b'x'; line - 1];
    text.push(b'\n');
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < Duration::from_secs(1) {
        for _ in 0..100 {
            file.write_all(&text).unwrap();
        }
        bytes += 100 * line;
    }
    bytes as f64 / begin.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement: it takes its time and asserts nothing"]
async fn measure_what_the_watcher_costs_a_writer() {
    for line in [100, 4096] {
        let (mut plain, mut watched) = (Vec::new(), Vec::new());
        for round in 0..5 {
            let logs = Logs::new();
            let name = format!("plain{round}");
            let path = logs.path(&name);
            plain.push(tokio::task::spawn_blocking(move || write(path, line)).await.unwrap());

            let name = format!("watched{round}");
            let path = logs.path(&name);
            logs.append(&name, "begin\n");
            let watcher = logs.watched(&[&name]);
            seen(&watcher, &name, 6).await;
            watched.push(tokio::task::spawn_blocking(move || write(path, line)).await.unwrap());
            let records = std::fs::metadata(stigmer::logs::index_path(&logs.path(&name))).unwrap();
            println!("{line} bytes: {} records a second", records.len() / 16);
            watcher.unwatch(&instance(&name));
        }
        plain.sort_by(f64::total_cmp);
        watched.sort_by(f64::total_cmp);
        let (plain, watched) = (plain[2] / 1e6, watched[2] / 1e6);
        println!(
            "{line} bytes: {plain:.0} MB/s alone, {watched:.0} MB/s watched, ratio {:.2}",
            watched / plain
        );
    }
}
