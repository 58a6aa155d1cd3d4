//! Names that all clients share. The core keeps definitions; what they mean is the planner's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::BlobHash;

/// Catalogue entries by qualified name (`schema.table`, folded as SQL folds names).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Grows by one with every change, so that a cache knows when it is stale.
    pub version: u64,
    /// Definitions by qualified name.
    pub entries: BTreeMap<String, CatalogueEntry>,
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
    /// Rows kept as one blob in Arrow IPC format.
    Table {
        /// The rows.
        rows: BlobHash,
    },
}
