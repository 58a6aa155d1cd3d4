//! Jobs in a cluster of real processes: they are created, fire, publish each interval once, are tried again, survive kills of
//! everybody, and say where they stopped and why.

mod api;
mod built;
mod checks;
mod counted;
mod faults;
mod inputs;
mod kills;
mod late;
mod lateness;
mod many;
mod once;
mod others;
mod rewrites;
mod shared;
mod sinks;
mod statements;
mod stopped;
mod suspended;
mod typed;
mod webhooks;
mod workers;

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_core::Error;
use tidemill_tests::harness::{AWAY, ProcessCluster, rows, value};

/// For what takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tables to read and to publish into.
async fn tables(client: &mut Client, folder: &Path) {
    for create in creates(folder) {
        rows(client, &create).await;
    }
}

fn creates(folder: &Path) -> [String; 3] {
    let path = |name: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path.display().to_string()
    };
    let table = |name: &str, columns: &str, format: &str| {
        format!("CREATE EXTERNAL TABLE {name} ({columns}) STORED AS {format} LOCATION '{}'", path(name))
    };
    [
        table("clicks", "ts TIMESTAMP, ad BIGINT", "PARQUET"),
        table("sums", "hour TIMESTAMP, n BIGINT", "DELTA"),
        table("rolled", "hour TIMESTAMP, n BIGINT", "DELTA"),
    ]
}

/// A click of each minute of the first of March.
async fn click(client: &mut Client, folder: &Path) {
    let clicks = "SELECT to_timestamp(1772323200 + v * 60) AS ts, v AS ad FROM generate_series(0, 1439) AS t(v)";
    let path = folder.join("clicks/all.parquet");
    rows(client, &format!("COPY ({clicks}) TO '{}'", path.display())).await;
}

/// The error that a statement must end with.
async fn refused(client: &mut Client, sql: &str) -> Error {
    match client.execute(sql).await {
        Err(error) => error,
        Ok(result) => result.collect().await.err().unwrap_or_else(|| panic!("{sql} was not refused")),
    }
}

/// A cluster whose function `away` fails as long as the file is there.
async fn away(folder: &Path) -> (ProcessCluster, std::path::PathBuf) {
    let file = folder.join("away");
    std::fs::write(&file, "").expect("a file");
    let cluster = ProcessCluster::with(1, 1, "memory://", &[(AWAY, file.display().to_string())]).await;
    (cluster, file)
}

/// An hourly job.
fn hourly(name: &str, settings: &str) -> String {
    format!(
        "CREATE JOB {name} INTO sums SCHEDULE CRON '5 * * * *' INTERVAL '1 hour' START '2026-03-01' \
         WITH (interval_column = 'hour'{settings}) AS SELECT date_trunc('hour', ts) AS hour, count(*) AS n FROM clicks \
         WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1"
    )
}

/// The same, which runs only when somebody asks for it.
fn asked(name: &str, settings: &str) -> String {
    hourly(name, settings).replace("5 * * * *", "@yearly")
}

/// Waits until a query gives a value.
async fn until(client: &mut Client, sql: &str, expected: &str) {
    let start = Instant::now();
    loop {
        let found = value(client, sql).await;
        if found == expected {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{sql} gives {found} and not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
