//! What a task's exchanges cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tidemill_core::record::Requests;

/// Counters of one task's exchanges. Times in nanoseconds, sizes in bytes.
#[derive(Debug, Default)]
pub struct IoMetrics {
    /// Rows read from exchanges.
    pub rows_in: AtomicU64,
    /// Rows written to the exchange.
    pub rows_out: AtomicU64,
    /// Arrow bytes written to the exchange.
    pub bytes_out: AtomicU64,
    /// Bytes received from other processes.
    pub remote_bytes: AtomicU64,
    /// Bytes that the exchange wrote to local disk.
    pub spilled_bytes: AtomicU64,
    /// Time encoding and decoding frames.
    pub encode_ns: AtomicU64,
    /// Time partitioning and storing output.
    pub exchange_ns: AtomicU64,
    /// Time waiting for input.
    pub wait_ns: AtomicU64,
    /// Requests to the store for packs.
    pub get_requests: AtomicU64,
    /// Requests to the store for names.
    pub list_requests: AtomicU64,
}

impl IoMetrics {
    /// The requests since this was last asked.
    pub fn take_requests(&self) -> Requests {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Requests { gets: take(&self.get_requests), lists: take(&self.list_requests) }
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds the time since `start`.
    pub fn add_since(counter: &AtomicU64, start: Instant) {
        Self::add(counter, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}
