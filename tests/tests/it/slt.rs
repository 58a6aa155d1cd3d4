//! The sqllogictest files of `tests/slt`, embedded and on a cluster of two executors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tidemill::client::Client;
use tidemill::compose::{Embedded, EmbeddedConfig};
use tidemill_tests::harness::{LocalCluster, Shape, create_small_tables, rows};

struct Tidemill(Client);

#[async_trait]
impl AsyncDB for Tidemill {
    type Error = tidemill::Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Self::Error> {
        let result = self.0.execute(sql).await?;
        let schema = Arc::clone(&result.schema);
        let batches = result.collect().await?;
        if schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = schema.fields().iter().map(|field| match field.data_type() {
            kind if kind.is_integer() => DefaultColumnType::Integer,
            kind if kind.is_numeric() => DefaultColumnType::FloatingPoint,
            _ => DefaultColumnType::Text,
        });
        let options = FormatOptions::default().with_null("NULL").with_display_error(false);
        let mut rows = Vec::new();
        for batch in &batches {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("a type"))
                .collect();
            for row in 0..batch.num_rows() {
                let values = columns.iter().map(|c| match c.value(row).to_string() {
                    empty if empty.is_empty() => "(empty)".to_owned(),
                    value => value,
                });
                rows.push(values.collect());
            }
        }
        Ok(DBOutput::Rows { types: types.collect(), rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "tidemill"
    }

    async fn sleep(duration: std::time::Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let files = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
    let mut files: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "slt")).collect();
    files.sort();
    assert!(files.len() >= 5, "only {} files are left", files.len());
    files
}

/// Runs every file in sessions that `client` makes. A cluster's catalogue is shared, so files name their own tables.
async fn run(context: &str, client: impl AsyncFn() -> Client) {
    let mut first = client().await;
    for create in create_small_tables().await {
        rows(&mut first, &create).await;
    }
    for file in files() {
        let mut runner = Runner::new(async || {
            let mut client = client().await;
            client.set("datafusion.execution.target_partitions", "3")?;
            Ok(Tidemill(client))
        });
        if let Err(error) = runner.run_file_async(&file).await {
            panic!("{context}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_hold_embedded() {
    let work = tempfile::tempdir().expect("a folder");
    let config =
        EmbeddedConfig { slots: 2, memory: 512 << 20, work_dir: work.path().to_owned(), ..EmbeddedConfig::default() };
    let embedded = Arc::new(Embedded::start(config).expect("an embedded cluster"));
    run("embedded", async || Client::of(Arc::clone(&embedded))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_hold_on_two_executors() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    run("two executors", async || cluster.client().await).await;
}
