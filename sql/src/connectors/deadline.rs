//! Waits for databases, each with an end and a name.

use std::time::Duration;

use tidemill_core::{Error, Result};
use tidemill_engine::connector::RemoteTable;

/// To connect, with all that greeting takes.
pub(super) const CONNECT: Duration = Duration::from_secs(15);
/// For the columns of a table.
pub(super) const DESCRIBE: Duration = Duration::from_secs(30);
/// For the next rows of a query: it may sort before it sends the first.
pub(super) const ROWS: Duration = Duration::from_secs(600);

/// Waits for `work` on a table, but no longer than `limit`.
///
/// # Errors
/// It took longer; otherwise those of `work`.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    table: &RemoteTable,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!(
            "waited {} s for {what} of {table}: is the database up, and is nothing locked there?",
            limit.as_secs()
        ))),
    }
}
