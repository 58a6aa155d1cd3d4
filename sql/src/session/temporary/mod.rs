//! Temporary views and tables: a session's own, which its client remembers.
//!
//! ```text
//! CREATE TEMPORARY … ──► planner ──► answer: what the name stands for ──► the client's settings
//! next statement     ──► settings ──► planner: names in front of the catalogue's, in the schema `temporary`
//! ```
//!
//! Definitions travel with each statement, and are kept with its run. Rows of a table stay with the coordinator as a blob, for
//! as long as it hears of the session: see `tidemill_core::schedule`.
//!
//! Invariant: no record names a temporary view or table; nobody finds one by its name but the session that made it.

mod making;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::TableReference;
use serde::{Deserialize, Serialize};
use tidemill_core::record::Record;
use tidemill_core::{Error, Result, RunId, SessionId};
use tidemill_engine::planner::{Plan, PlanRequest};
use tidemill_engine::runtime::CATALOG;
use tidemill_engine::sessions::{SESSION, TEMPORARY};

use super::settings::ClientSettings;
use super::{redact, statements};
pub(super) use making::{KeepTemporary, Making, dropped, in_datafusions_order, ingested, own, plain, reading};
pub(super) use names::{schema, search_first};

/// The schema that temporary views and tables are listed in. Unqualified names are looked for there first.
pub(crate) const SCHEMA: &str = "temporary";
/// The key of an answer's metadata under which it tells what changed.
const ANSWER: &str = "tidemill.temporary";
/// Temporary views and tables of one session.
const MAX_DEFINITIONS: usize = 100;
/// Bytes of all their definitions: they travel with each statement.
const MAX_BYTES: usize = 256 << 10;

/// What a temporary name stands for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Temporary {
    pub(super) kind: Kind,
    /// The statement that made it.
    pub(super) definition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A query. It reads the temporary views and tables that it named when it was made, and no others: a name that is hidden
    /// later means what it did.
    View { uses: BTreeSet<String> },
    /// Files somewhere else.
    ExternalTable,
    /// The rows of a run.
    Table { run: RunId },
}

impl Temporary {
    /// What it is called in messages.
    const fn noun(&self) -> &'static str {
        match self.kind {
            Kind::View { .. } => "view",
            Kind::ExternalTable | Kind::Table { .. } => "table",
        }
    }

    /// The run whose rows it has.
    pub(super) const fn rows(&self) -> Option<&RunId> {
        match &self.kind {
            Kind::Table { run } => Some(run),
            Kind::View { .. } | Kind::ExternalTable => None,
        }
    }
}

impl fmt::Debug for Temporary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Temporary").field("kind", &self.kind).field("definition", &redact(&self.definition)).finish()
    }
}

/// The temporary views and tables that statements see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Temporaries {
    known: BTreeMap<String, Temporary>,
    /// Names that a view meant, and that mean nothing any more.
    gone: BTreeSet<String>,
}

impl Temporaries {
    /// Those that came with a statement.
    pub(super) fn of(settings: &BTreeMap<String, String>) -> Result<Self> {
        let sent = settings.iter().filter_map(|(key, value)| Some((key.strip_prefix(TEMPORARY)?, value)));
        let mut known = BTreeMap::new();
        for (name, value) in sent {
            let temporary = serde_json::from_str(value).map_err(|_| {
                Error::invalid(format!(
                    "the definition of the temporary `{name}` cannot be read: use clients of this build"
                ))
            })?;
            known.insert(name.to_owned(), temporary);
        }
        Self { known, gone: BTreeSet::new() }.within_bounds()
    }

    /// These and one more.
    fn with(&self, name: &str, temporary: Temporary) -> Result<Self> {
        let mut more = self.clone();
        more.known.insert(name.to_owned(), temporary);
        more.within_bounds()
    }

    /// Those that a view reads.
    fn only(&self, names: &BTreeSet<String>) -> Self {
        let known = self.known.iter().filter(|(name, _)| names.contains(*name));
        let known: BTreeMap<_, _> = known.map(|(name, temporary)| (name.clone(), temporary.clone())).collect();
        let gone = names.iter().filter(|name| !known.contains_key(*name)).cloned().collect();
        Self { known, gone }
    }

    /// These names, and those that their views read, at first or second hand.
    fn reached_from(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let (mut open, mut reached) = (names.clone(), BTreeSet::new());
        while let Some(name) = open.pop_first() {
            if let Some(Temporary { kind: Kind::View { uses }, .. }) = self.known.get(&name) {
                open.extend(uses.iter().filter(|used| !reached.contains(*used)).cloned());
            }
            reached.insert(name);
        }
        reached
    }

    fn within_bounds(self) -> Result<Self> {
        if self.known.len() > MAX_DEFINITIONS {
            return Err(Error::resources_exhausted(format!(
                "a session has at most {MAX_DEFINITIONS} temporary views and tables: drop some"
            )));
        }
        let bytes: usize = self.known.iter().map(|(name, temporary)| name.len() + temporary.definition.len()).sum();
        if bytes > MAX_BYTES {
            return Err(Error::resources_exhausted(format!(
                "the definitions of a session's temporary views and tables have at most {} KiB, as they travel with each \
                 statement: drop some, or make them for all",
                MAX_BYTES >> 10
            )));
        }
        Ok(self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.gone.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Temporary> {
        self.known.get(name)
    }

    fn is_gone(&self, name: &str) -> bool {
        self.gone.contains(name)
    }

    /// The one that a statement names: without a schema, or in the schema of these.
    pub(super) fn named(&self, reference: &TableReference) -> Option<(&str, &Temporary)> {
        let in_reach = reference.schema().is_none_or(|schema| schema == SCHEMA)
            && reference.catalog().is_none_or(|catalog| catalog == CATALOG);
        let found = self.known.get_key_value(reference.table()).filter(|_| in_reach);
        found.map(|(name, temporary)| (name.as_str(), temporary))
    }
}

/// What a statement changes of its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    name: String,
    /// Nothing, where it is dropped.
    becomes: Option<Temporary>,
}

impl Change {
    fn encode(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(format!("a change of a session: {e}")))
    }
}

/// Columns that tell the client what changed.
fn telling(columns: &Schema, change: &str) -> SchemaRef {
    let mut metadata = columns.metadata().clone();
    metadata.insert(ANSWER.to_owned(), change.to_owned());
    Arc::new(Schema::new_with_metadata(columns.fields().clone(), metadata))
}

/// The plan of a change that runs nothing.
fn changing(change: &Change, record: Option<Record>) -> Result<Plan> {
    let answer = telling(&Schema::empty(), &change.encode()?);
    Ok(Plan::Session { answer, record: record.map(Box::new), blobs: Vec::new() })
}

/// The plan of no change.
fn unchanged() -> Plan {
    Plan::Session { answer: Arc::new(Schema::empty()), record: None, blobs: Vec::new() }
}

/// Whether the text may make something temporary.
fn may_make(text: &str) -> bool {
    let mut words = statements::words(text);
    let is_word = |word: String| word == "temporary" || word == "temp";
    words.next().is_some_and(|first| first == "create" || first == "ingest") && words.take(5).any(is_word)
}

/// The rows that a run of the session left, unless they are gone.
pub(super) fn rows_of(request: &PlanRequest, run: &RunId) -> Option<Bytes> {
    request.session.tables.get(run).and_then(|rows| request.blobs.read(&rows.blob))
}

/// The session of a client that keeps one.
fn session(settings: &BTreeMap<String, String>) -> Result<SessionId> {
    tidemill_engine::sessions::session_of(settings).ok_or_else(|| {
        Error::invalid(
            "temporary views and tables need a client that keeps them, and this one does not: use `tidemill sql` or Flight \
             SQL; in a DataFrame session, register tables and views instead",
        )
    })
}

/// Whether a definition holds a secret. So may those that cannot be read, or are more than a session has.
pub(super) fn hold_secret(settings: &BTreeMap<String, String>) -> bool {
    let holds = |temporary: &Temporary| redact(&temporary.definition) != temporary.definition;
    Temporaries::of(settings).map_or(true, |temporaries| temporaries.known.values().any(holds))
}

impl ClientSettings {
    /// Whether the statement may make something temporary.
    #[must_use]
    pub fn may_begin_session(sql: &str) -> bool {
        may_make(sql)
    }

    /// Gives the session a name, if the statement may make something temporary; statements behind it tell the name, too.
    pub fn begin_session(&mut self, sql: &str) {
        if may_make(sql) {
            // Nobody guesses it: 160 of its bits are random.
            let name = || format!("{}{}", ulid::Ulid::new(), ulid::Ulid::new());
            self.entries_mut().entry(SESSION.to_owned()).or_insert_with(name);
        }
    }

    /// The session's secret name, if it has one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.entries().get(SESSION).map(String::as_str)
    }

    /// The session's temporary views and tables.
    pub fn temporaries(&self) -> impl Iterator<Item = &str> {
        self.entries().keys().filter_map(|key| key.strip_prefix(TEMPORARY))
    }

    /// Whether an answer tells that a statement changed the session.
    #[must_use]
    pub fn are_told(answer: &Schema) -> bool {
        answer.metadata().contains_key(ANSWER)
    }

    /// Remembers what an answer tells; these are its columns without that.
    ///
    /// # Errors
    /// The session has too many temporary views and tables by now.
    pub fn remember(&mut self, answer: &SchemaRef) -> Result<SchemaRef> {
        let Some(change) = answer.metadata().get(ANSWER) else { return Ok(Arc::clone(answer)) };
        let unreadable = |e| Error::internal(format!("what a statement changed cannot be read: {e}"));
        let Change { name, becomes } = serde_json::from_str(change).map_err(unreadable)?;
        let mut changed = self.entries().clone();
        match becomes {
            Some(temporary) => {
                let value = serde_json::to_string(&temporary).map_err(unreadable)?;
                changed.insert(format!("{TEMPORARY}{name}"), value)
            }
            None => changed.remove(&format!("{TEMPORARY}{name}")),
        };
        // Others of its statements may have made some meanwhile.
        Temporaries::of(&changed)?;
        *self.entries_mut() = changed;
        let mut metadata = answer.metadata().clone();
        metadata.remove(ANSWER);
        Ok(Arc::new(Schema::new_with_metadata(answer.fields().clone(), metadata)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(uses: &[&str]) -> Temporary {
        let uses = uses.iter().map(|name| (*name).to_owned()).collect();
        Temporary { kind: Kind::View { uses }, definition: "CREATE TEMPORARY VIEW v AS SELECT 1".to_owned() }
    }

    fn told(name: &str, becomes: Option<Temporary>) -> Result<SchemaRef> {
        let change = Change { name: name.to_owned(), becomes };
        Ok(telling(&Schema::empty(), &change.encode()?))
    }

    #[test]
    fn a_client_remembers_what_it_is_told_and_forgets_what_was_dropped() -> Result<()> {
        let mut settings = ClientSettings::default();
        settings.begin_session("SELECT 1");
        assert_eq!(settings.session(), None);
        settings.begin_session("create or replace TEMP view v as select 1");
        let name = settings.session().map(str::to_owned);
        settings.begin_session("CREATE TEMPORARY TABLE t AS SELECT 1");
        assert!(name.is_some() && settings.session() == name.as_deref(), "it is named once");
        let columns = settings.remember(&told("Odd \"name\".", Some(view(&["u"])))?)?;
        assert!(!ClientSettings::are_told(&columns));
        assert_eq!(settings.temporaries().collect::<Vec<_>>(), ["Odd \"name\"."]);
        assert_eq!(Temporaries::of(settings.entries())?.get("Odd \"name\"."), Some(&view(&["u"])));
        settings.remember(&told("Odd \"name\".", None)?)?;
        assert_eq!(settings.temporaries().count(), 0);
        Ok(())
    }

    #[test]
    fn nobody_sets_what_belongs_to_the_session() {
        let mut settings = ClientSettings::default();
        assert!(settings.set("tidemill.temporary.v", "{}").is_err());
        assert!(settings.set(SESSION, "somebody else's").is_err());
        settings.begin_session("CREATE TEMP VIEW v AS SELECT 1");
        let name = settings.session().map(str::to_owned);
        settings.reset(SESSION);
        assert_eq!(settings.session(), name.as_deref());
        assert!(settings.shown().all(|(key, _)| key != SESSION));
    }

    #[test]
    fn there_are_no_more_than_may_travel() -> Result<()> {
        let mut settings = ClientSettings::default();
        for number in 0..MAX_DEFINITIONS {
            settings.remember(&told(&format!("v{number}"), Some(view(&[])))?)?;
        }
        let more = settings.remember(&told("more", Some(view(&[])))?);
        assert!(more.is_err_and(|e| e.message.contains("at most 100")));
        let long = Temporary { definition: "x".repeat(MAX_BYTES), ..view(&[]) };
        let long = settings.remember(&told("v0", Some(long))?);
        assert!(long.is_err_and(|e| e.message.contains("at most 256 KiB")));
        assert_eq!(settings.temporaries().count(), MAX_DEFINITIONS);
        Ok(())
    }

    #[test]
    fn a_definition_with_a_secret_is_found() -> Result<()> {
        let mut settings = ClientSettings::default();
        settings.remember(&told("v", Some(view(&[])))?)?;
        assert!(!hold_secret(settings.entries()));
        let definition = "CREATE TEMP VIEW w AS SELECT * FROM t WHERE password = 'x'".to_owned();
        settings.remember(&told("w", Some(Temporary { definition, ..view(&[]) }))?)?;
        assert!(hold_secret(settings.entries()));
        Ok(())
    }
}
