//! Names that all clients share. The core keeps definitions; what they mean is the planner's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::BlobHash;

/// Catalogue entries by qualified name (`schema.table`, or `schema` alone; folded as SQL folds names).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Grows by one with every change, so that a cache knows when it is stale.
    pub version: u64,
    /// Definitions by qualified name.
    pub entries: BTreeMap<String, CatalogueEntry>,
}

impl Catalogue {
    /// Whether the place of a name is there: its schema, if it was made, and nothing below a schema that is to go.
    #[must_use]
    pub fn can_change(&self, name: &str, change: Change) -> bool {
        match (name.split_once('.'), change) {
            (Some((schema, _)), Change::Set) => schema == DEFAULT_SCHEMA || self.entries.contains_key(schema),
            (None, Change::Drop) => {
                let below = format!("{name}.");
                !self.entries.keys().any(|entry| entry.starts_with(&below))
            }
            (Some(_), Change::Drop) | (None, Change::Set) => true,
        }
    }
}

/// The schema that is always there.
pub const DEFAULT_SCHEMA: &str = "public";

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is made, or made anew.
    Set,
    /// It is dropped.
    Drop,
}

/// A named definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// What the name stands for.
    pub kind: CatalogueKind,
    /// The statement that defines it, in SQL without secrets.
    pub definition: String,
}

/// What a catalogue name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogueKind {
    /// Files somewhere else.
    ExternalTable,
    /// A query.
    View,
    /// A name below which others stand: its own has no `.`.
    Schema,
    /// Rows kept as one blob in Arrow IPC format.
    Table {
        /// The rows.
        rows: BlobHash,
    },
}
