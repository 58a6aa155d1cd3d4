//! What attempts cost, and what is asked of the store.

use serde::{Deserialize, Serialize};

/// Requests to the store that read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requests {
    /// For packs and results.
    pub gets: u64,
    /// For names.
    pub lists: u64,
}

/// What an attempt cost. Times in nanoseconds, sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskMetrics {
    /// Rows read from exchanges and scans.
    pub rows_in: u64,
    /// Of these, rows that scans gave.
    #[serde(default)]
    pub rows_scanned: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Arrow bytes written to the exchange.
    pub bytes_out: u64,
    /// Bytes received from other processes.
    pub remote_bytes: u64,
    /// Bytes written to local disk by operators and by the exchange.
    pub spilled_bytes: u64,
    /// Bytes of the frames that the attempt had to encode itself, as they lie on disk and in packs: those that did not fit
    /// into memory, or all of them where a test wants it.
    #[serde(default)]
    pub encoded_bytes: u64,
    /// Requests to the store for packs.
    pub get_requests: u64,
    /// Requests to the store for names.
    #[serde(default)]
    pub list_requests: u64,
    /// Arrow bytes that durability `auto` left out of the store: they are sooner made again than stored. An output without
    /// bytes is never left out.
    #[serde(default)]
    pub left_out_bytes: u64,
    /// Where `auto` decided: the time that making the output took.
    #[serde(default)]
    pub make_ns: u64,
    /// Where `auto` decided: the time that storing it was expected to take.
    #[serde(default)]
    pub store_ns: u64,
    /// Time in scans.
    pub scan_ns: u64,
    /// Time in other operators.
    pub operator_ns: u64,
    /// Time encoding and decoding frames.
    pub encode_ns: u64,
    /// Time partitioning and storing output.
    pub exchange_ns: u64,
    /// Time waiting for input from other processes.
    pub wait_ns: u64,
}

impl TaskMetrics {
    /// Adds requests that no attempt made.
    pub const fn add_requests(&mut self, requests: Requests) {
        self.get_requests += requests.gets;
        self.list_requests += requests.lists;
    }

    /// Adds `other` to every sum.
    pub const fn add(&mut self, other: &Self) {
        self.rows_in += other.rows_in;
        self.rows_scanned += other.rows_scanned;
        self.rows_out += other.rows_out;
        self.bytes_out += other.bytes_out;
        self.remote_bytes += other.remote_bytes;
        self.spilled_bytes += other.spilled_bytes;
        self.encoded_bytes += other.encoded_bytes;
        self.get_requests += other.get_requests;
        self.list_requests += other.list_requests;
        self.left_out_bytes += other.left_out_bytes;
        self.make_ns += other.make_ns;
        self.store_ns += other.store_ns;
        self.scan_ns += other.scan_ns;
        self.operator_ns += other.operator_ns;
        self.encode_ns += other.encode_ns;
        self.exchange_ns += other.exchange_ns;
        self.wait_ns += other.wait_ns;
    }
}
