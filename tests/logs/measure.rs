//! Measurements, not tests: run them with
//! `cargo test --test logs measure -- --ignored --nocapture --test-threads 1`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Logs, instance, seen};

const ROUND: Duration = Duration::from_millis(250);
const ROUNDS: usize = 12;

/// Appends lines for a round; megabytes per second.
fn write(path: PathBuf, line: u32) -> f64 {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let mut text = vec![b'x'; line as usize - 1];
    text.push(b'\n');
    let begin = Instant::now();
    let mut lines = 0;
    while begin.elapsed() < ROUND {
        for _ in 0..100 {
            file.write_all(&text).unwrap();
        }
        lines += 100;
    }
    f64::from(lines) * f64::from(line) / 1e6 / begin.elapsed().as_secs_f64()
}

/// One round on a log of its own; also how many records its index got.
async fn round(line: u32, is_watched: bool) -> (f64, u64) {
    let logs = Logs::new();
    logs.append("api", "begin\n");
    let watcher = logs.watcher();
    if is_watched {
        watcher.watch(instance("api"), logs.path("api"));
        seen(&watcher, "api", 6).await;
    }
    let path = logs.path("api");
    let speed = tokio::task::spawn_blocking(move || write(path, line)).await.unwrap();
    let index = std::fs::metadata(stigmer::logs::index_path(&logs.path("api")));
    (speed, index.map_or(0, |index| index.len() / 16))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement: it takes its time and asserts nothing"]
async fn measure_what_the_watcher_costs_a_writer() {
    for line in [100, 4096] {
        let (mut alone, mut watched, mut records) = (Vec::new(), Vec::new(), 0);
        for number in 0..ROUNDS {
            // Alternately first: whoever goes second meets what the first has left to the disk.
            for is_watched in [number % 2 == 0, number % 2 != 0] {
                let (speed, index) = round(line, is_watched).await;
                if is_watched { &mut watched } else { &mut alone }.push(speed);
                records = records.max(index);
            }
        }
        let (alone, watched) = (median(alone), median(watched));
        println!(
            "lines of {line} bytes: {alone:.0} MB/s alone, {watched:.0} MB/s watched, ratio {:.2}; \
             at most {records} records in {ROUND:?}",
            watched / alone
        );
    }
}
