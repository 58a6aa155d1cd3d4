//! Jobs in a cluster of real processes, as far as datasets are there: they are created, fire, are tried again, survive kills of
//! everybody, and say where they stopped and why.

mod api;
mod kills;
mod many;
mod statements;
mod webhooks;

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_tests::harness::{rows, value};

/// Why a write fails in a build without datasets.
const REFUSED: &str = "UnsupportedDatasets";
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
    let table = |name: &str, columns: &str| {
        format!("CREATE EXTERNAL TABLE {name} ({columns}) STORED AS PARQUET LOCATION '{}'", path(name))
    };
    [
        table("clicks", "ts TIMESTAMP, ad BIGINT"),
        table("sums", "hour TIMESTAMP, n BIGINT"),
        table("rolled", "hour TIMESTAMP, n BIGINT"),
    ]
}

/// An hourly job.
fn hourly(name: &str, settings: &str) -> String {
    format!(
        "CREATE JOB {name} INTO sums SCHEDULE CRON '5 * * * *' INTERVAL '1 hour' START '2026-03-01' \
         WITH (interval_column = 'hour'{settings}) AS SELECT date_trunc('hour', ts) AS hour, count(*) AS n FROM clicks \
         WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1"
    )
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
