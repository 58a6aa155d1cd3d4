//! Rows of temporary tables, by the sessions that they end with. What the tables are called only their clients know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Record, State};
use crate::{BlobHash, Error, Millis, RunId, SessionId, Settings};

/// What is kept for a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRows {
    /// When the session was last heard of.
    pub heard_at: Millis,
    /// The rows of its temporary tables, by the runs that made them.
    pub tables: BTreeMap<RunId, TableRows>,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// The rows, as one blob in Arrow IPC format.
    pub blob: BlobHash,
    /// Its size.
    pub bytes: u64,
}

impl SessionRows {
    /// Bytes of all its rows but those of one run.
    fn bytes_without(&self, run: Option<&RunId>) -> u64 {
        self.tables.iter().filter(|(made_by, _)| Some(*made_by) != run).map(|(_, rows)| rows.bytes).sum()
    }
}

impl State {
    /// The blobs of all temporary tables.
    pub fn temporary_rows(&self) -> impl Iterator<Item = &BlobHash> {
        self.sessions.values().flat_map(|session| session.tables.values()).map(|rows| &rows.blob)
    }

    /// Why a record cannot be: it would keep more for sessions than there is room for.
    #[must_use]
    pub fn lacks_room(&self, record: &Record, settings: &Settings) -> Option<Error> {
        let Record::SessionRowsKept { session, rows, replaces, .. } = record else { return None };
        let bytes = |(id, kept): (&SessionId, &SessionRows)| match id == session {
            true => kept.bytes_without(replaces.as_ref()),
            false => kept.bytes_without(None),
        };
        let own = self.sessions.get_key_value(session).map_or(0, bytes) + rows.bytes;
        let all = self.sessions.iter().map(bytes).sum::<u64>() + rows.bytes;
        let (whose, limit) = match (own > settings.session_bytes, all > settings.sessions_bytes) {
            (true, _) => ("of this session", settings.session_bytes),
            (false, true) => ("of all sessions", settings.sessions_bytes),
            (false, false) => return None,
        };
        Some(Error::resources_exhausted(format!(
            "the temporary tables {whose} would have more than {} MiB of rows: drop some, or write the rows with COPY and \
             create an external table",
            limit >> 20
        )))
    }

    /// Records about sessions.
    pub(super) fn apply_to_sessions(&mut self, record: &Record) {
        match record {
            Record::SessionRowsKept { session, run, rows, replaces, at } => {
                let kept = self.sessions.entry(session.clone()).or_default();
                kept.heard_at = *at;
                replaces.iter().for_each(|replaced| {
                    kept.tables.remove(replaced);
                });
                kept.tables.insert(run.clone(), rows.clone());
            }
            Record::SessionRowsDropped { session, run } => {
                let Some(kept) = self.sessions.get_mut(session) else { return };
                kept.tables.remove(run);
                if kept.tables.is_empty() {
                    self.sessions.remove(session);
                }
            }
            Record::SessionHeard { session, at } => {
                if let Some(kept) = self.sessions.get_mut(session) {
                    kept.heard_at = *at;
                }
            }
            Record::SessionEnded { session } => {
                self.sessions.remove(session);
            }
            _ => {}
        }
    }
}
