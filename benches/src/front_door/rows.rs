//! A large answer: through Flight SQL, and the same rows written as Arrow IPC in the process that made them.

use std::io::Write;
use std::time::{Duration, Instant};

use arrow::ipc::writer::StreamWriter;
use futures::StreamExt;
use tidemill::oracle::Oracle;
use tidemill::{Error, Result};

use super::client::{Door, Fetched};
use crate::report::median;

/// Measured, after one that warms up.
const REPETITIONS: usize = 5;

/// How one side did.
pub(super) struct Speed {
    pub(super) name: String,
    pub(super) fetched: Fetched,
    pub(super) time: Duration,
}

/// Some columns of about so many lines of orders: of every 32 keys eight are used, for four lines each on average.
pub(super) fn statement(rows: u64) -> String {
    format!(
        "SELECT l_orderkey, l_partkey, l_quantity, l_extendedprice, l_shipdate, l_shipmode, l_comment \
         FROM lineitem WHERE l_orderkey <= {rows}"
    )
}

/// Each side in turn, again and again. The first of them says what the rows are.
pub(super) async fn measure(doors: &mut [(&str, Door)], oracle: &Oracle, sql: &str) -> Result<Vec<Speed>> {
    // Drivers are given strings that they know; so is the other side, for the same bytes.
    run(oracle, "SET datafusion.optimizer.expand_views_at_output = true").await?;
    let mut times = vec![Vec::new(); doors.len() + 1];
    let mut seen = vec![Fetched::default(); doors.len() + 1];
    for repetition in 0..=REPETITIONS {
        for (side, (seen, times)) in seen.iter_mut().zip(&mut times).enumerate() {
            let (fetched, time) = match doors.get_mut(side) {
                Some((_, door)) => door.query(sql).await?,
                None => run(oracle, sql).await?,
            };
            *seen = fetched;
            if repetition > 0 {
                times.push(time);
            }
        }
        let first = seen.first().copied().unwrap_or_default();
        if let Some(other) = seen.iter().find(|other| !other.has_rows_of(&first)) {
            return Err(Error::internal(format!("the same statement gave {first:?} and {other:?}")));
        }
    }
    let names = doors.iter().map(|(name, _)| format!("Flight SQL, {name}"));
    let names = names.chain(["in-process DataFusion, written as Arrow IPC".to_owned()]);
    let sides = names.zip(seen).zip(times);
    Ok(sides.map(|((name, fetched), mut times)| Speed { name, fetched, time: median(&mut times) }).collect())
}

/// Runs a statement in this process and writes its rows as an Arrow IPC stream to nowhere.
async fn run(oracle: &Oracle, sql: &str) -> Result<(Fetched, Duration)> {
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("DataFusion: {e}"));
    let start = Instant::now();
    let query = oracle.context().sql(sql).await.map_err(|e| failed(&e))?;
    let mut batches = query.execute_stream().await.map_err(|e| failed(&e))?;
    let mut counted = Counted::default();
    let mut fetched = Fetched::default();
    let schema = batches.schema();
    let mut writer = StreamWriter::try_new(&mut counted, &schema).map_err(|e| failed(&e))?;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|e| failed(&e))?;
        writer.write(&batch).map_err(|e| failed(&e))?;
        fetched.add_rows(&batch);
    }
    writer.finish().map_err(|e| failed(&e))?;
    drop(writer);
    fetched.bytes = counted.0;
    Ok((fetched, start.elapsed()))
}

/// Takes bytes and counts them.
#[derive(Default)]
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
