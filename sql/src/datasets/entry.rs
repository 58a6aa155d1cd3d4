//! An entry of the log as it is written.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::dataset::WrittenFile;
use tidemill_engine::wire::BUILD;

use super::target::{Mode, Target};
use super::version::ActiveFile;

/// What only writers themselves say in an entry.
const RESERVED: &[&str] = &[
    "timestamp",
    "operation",
    "operationParameters",
    "readVersion",
    "isolationLevel",
    "isBlindAppend",
    "engineInfo",
    "inCommitTimestamp",
    "operationMetrics",
    "run",
];

/// Paths are URLs in the log. Ours have no other signs that mean something there.
const IN_PATHS: &AsciiSet = &CONTROLS.add(b'%').add(b' ').add(b'#').add(b'?');

/// A file's path as the log has it.
pub(super) fn in_log(path: &str) -> String {
    utf8_percent_encode(path, IN_PATHS).to_string()
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// The lines of an entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    lines: Vec<Value>,
    at: u64,
    /// Whether rows change; rearranged ones do not.
    data_change: bool,
}

impl Entry {
    /// What a commit says of itself, and what makes it be done once.
    pub(super) fn new(target: &Target, run: &RunId, at: u64) -> Self {
        let mut info = Map::new();
        for (key, value) in target.info.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str())) {
            info.insert(key.clone(), value.clone().into());
        }
        info.insert("timestamp".to_owned(), at.into());
        info.insert("operation".to_owned(), target.operation.clone().into());
        info.insert("operationParameters".to_owned(), json!({ "mode": target.mode.name() }));
        let reads_itself = target.info.get("inputs").is_some_and(|inputs| inputs.contains(&target.location));
        info.insert("isBlindAppend".to_owned(), (target.mode == Mode::Append && !reads_itself).into());
        info.insert("engineInfo".to_owned(), format!("tidemill {BUILD}").into());
        info.insert("run".to_owned(), run.0.clone().into());
        if let Some(base) = target.base {
            info.insert("readVersion".to_owned(), base.into());
        }
        let txn = json!({ "txn": { "appId": target.application, "version": target.version, "lastUpdated": at } });
        let data_change = !matches!(target.mode, Mode::Rewrite(_));
        Self { lines: vec![json!({ "commitInfo": info }), txn], at, data_change }
    }

    /// It is a table's first.
    pub(super) fn make(&mut self, protocol: &Value, metadata: &Value) {
        self.protocol(protocol);
        self.metadata(metadata);
    }

    /// What the table asks of its readers and writers from now on.
    pub(super) fn protocol(&mut self, protocol: &Value) {
        self.lines.push(json!({ "protocol": protocol }));
    }

    /// Its columns, partitions and properties from now on.
    pub(super) fn metadata(&mut self, metadata: &Value) {
        self.lines.push(json!({ "metaData": metadata }));
    }

    pub(super) fn add(&mut self, file: &WrittenFile) {
        self.lines.push(json!({ "add": {
            "path": in_log(&file.path),
            "partitionValues": file.partition,
            "size": file.size,
            "modificationTime": file.modified,
            "dataChange": self.data_change,
            "stats": file.statistics,
        } }));
    }

    /// A file that a version had.
    pub(super) fn add_again(&mut self, file: &ActiveFile) {
        self.lines.push(json!({ "add": {
            "path": file.raw,
            "partitionValues": file.partition,
            "size": file.size,
            "modificationTime": file.modified,
            "dataChange": self.data_change,
            "stats": file.statistics,
        } }));
    }

    pub(super) fn remove(&mut self, file: &ActiveFile) {
        self.lines.push(json!({ "remove": {
            "path": file.raw,
            "deletionTimestamp": self.at,
            "dataChange": self.data_change,
            "extendedFileMetadata": true,
            "partitionValues": file.partition,
            "size": file.size,
            "stats": file.statistics,
        } }));
    }

    /// In bytes.
    pub(super) fn encode(&self) -> Result<Bytes> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            serde_json::to_writer(&mut bytes, line).map_err(|e| Error::internal(format!("an entry of a log: {e}")))?;
            bytes.push(b'\n');
        }
        Ok(bytes.into())
    }
}
