//! Sessions, as far as something is kept for them: the rows of their temporary tables.
//!
//! Invariant: rows go with their table, with their session, or when nobody has heard of that for too long; a leader begins to
//! count anew.

use super::Action;
use super::decide::Decider;
use crate::interval::{self, DatasetName};
use crate::record::Record;
use crate::{RunId, SessionId};

/// What part of its time-out a session may be silent before it is noted that it was heard again: not every statement needs a
/// record.
const NOTED: u64 = 8;

impl Decider<'_> {
    /// Applies what a statement changed of the catalogue, or of its session.
    pub(super) fn change(&mut self, record: Record) {
        let record = match record {
            Record::SessionRowsKept { session, run, rows, replaces, .. } => {
                replaces.iter().for_each(|replaced| self.forget_rows(&session, replaced));
                Record::SessionRowsKept { session, run, rows, replaces, at: self.now }
            }
            Record::SessionRowsDropped { session, run } => {
                self.forget_rows(&session, &run);
                Record::SessionRowsDropped { session, run }
            }
            Record::CatalogueDropped { name } => {
                self.of_jobs(interval::Event::DatasetDropped { dataset: DatasetName(name.clone()) });
                Record::CatalogueDropped { name }
            }
            other => other,
        };
        self.record(record);
    }

    fn forget_rows(&mut self, session: &SessionId, run: &RunId) {
        let rows = self.state.sessions.get(session).and_then(|kept| kept.tables.get(run));
        if let Some(blob) = rows.map(|rows| rows.blob.clone()) {
            self.act(Action::Forget { blob });
        }
    }

    pub(super) fn session_heard(&mut self, session: SessionId) {
        let silent = self.state.sessions.get(&session).map(|kept| self.now.since(kept.heard_at));
        if silent.is_some_and(|silent| silent >= self.settings.session_timeout_ms / NOTED) {
            self.record(Record::SessionHeard { session, at: self.now });
        }
    }

    pub(super) fn session_ended(&mut self, session: SessionId) {
        let Some(kept) = self.state.sessions.get(&session) else { return };
        let blobs: Vec<_> = kept.tables.values().map(|rows| rows.blob.clone()).collect();
        self.record(Record::SessionEnded { session });
        for blob in blobs {
            self.act(Action::Forget { blob });
        }
    }

    /// Ends sessions whose clients are gone.
    pub(super) fn end_silent_sessions(&mut self) {
        let limit = self.settings.session_timeout_ms;
        let silent = self.state.sessions.iter().filter(|(_, kept)| self.now.since(kept.heard_at) >= limit);
        for session in silent.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.session_ended(session);
        }
    }
}
