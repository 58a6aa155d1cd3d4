//! What stores, disks, networks, clocks and processes do to a run that is under way. Each test checks that its fault happened.

mod bytes;
mod folders;
mod network;
mod processes;
mod rows;
mod stores;

use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_core::Error;

/// Exchanges more than 64 MiB hold.
pub(crate) const WIDE: &str = "SELECT count(*) AS n, sum(n) AS s, max(m) AS m FROM (
    SELECT l_comment, l_orderkey, count(*) AS n, max(md5(repeat(l_comment, 60))) AS m FROM lineitem GROUP BY 1, 2) AS x";

pub(crate) async fn failure(client: &Client, sql: &str) -> Error {
    match client.query(sql).await {
        Err(error) => error,
        Ok(result) => result.collect().await.err().unwrap_or_else(|| panic!("{sql} succeeded")),
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} did not come to pass");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
