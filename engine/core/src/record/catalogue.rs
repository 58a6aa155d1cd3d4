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
    /// Whether names may stand below a schema.
    #[must_use]
    pub fn has_schema(&self, schema: &str) -> bool {
        schema == DEFAULT_SCHEMA || self.entries.contains_key(schema)
    }

    /// A name that stands below a schema.
    #[must_use]
    pub fn below(&self, schema: &str) -> Option<&str> {
        self.entries.keys().map(String::as_str).find(|name| name.split_once('.').is_some_and(|(own, _)| own == schema))
    }

    pub(super) fn set(&mut self, name: &str, entry: &CatalogueEntry) {
        self.version += 1;
        self.entries.insert(name.to_owned(), entry.clone());
    }

    pub(super) fn drop(&mut self, name: &str) {
        self.version += 1;
        self.entries.remove(name);
    }

    /// Whether the place of a name is there: its schema, if it was made, and nothing below a schema that is to go.
    #[must_use]
    pub fn can_change(&self, name: &str, change: Change) -> bool {
        match (name.split_once('.'), change) {
            (Some((schema, _)), Change::Set) => self.has_schema(schema),
            (None, Change::Drop) => self.below(name).is_none(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(names: &[&str]) -> Catalogue {
        let entry = |kind| CatalogueEntry { kind, definition: String::new() };
        let kind = |name: &str| if name.contains('.') { CatalogueKind::View } else { CatalogueKind::Schema };
        let entries = names.iter().map(|name| ((*name).to_owned(), entry(kind(name)))).collect();
        Catalogue { version: 0, entries }
    }

    #[test]
    fn a_table_needs_its_schema_and_a_schema_goes_when_it_is_empty() {
        let woods = catalogue(&["woods", "woods.oak"]);
        assert!(woods.can_change("public.t", Change::Set) && woods.can_change("woods.fir", Change::Set));
        assert!(!woods.can_change("meadow.grass", Change::Set), "its schema went while the table was made");
        assert!(!woods.can_change("woods", Change::Drop), "a table came while the schema was dropped");
        assert!(woods.can_change("woods.oak", Change::Drop));
        assert!(catalogue(&["woods", "wood.oak"]).can_change("woods", Change::Drop), "that is another's");
    }
}
