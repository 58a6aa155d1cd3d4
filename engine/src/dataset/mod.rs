//! Files of datasets: what sink tasks write below a table's folder, and how whoever commits learns of it.
//!
//! ```text
//! rows, sorted by partition ──► one open file ──► day=2026-01-01/part-00003-WRITER-1-42-0.parquet
//!                           at the end of the task ──► _tidemill/WRITER/00003-1-42.json    all its files, with statistics
//! ```
//!
//! Invariant: a task that succeeds has left a list of its files; a list names only files that are complete.

mod codec;
mod file;
mod sink;
mod stats;
mod values;
mod written;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::error::Result;

pub use codec::{DatasetNodes, decode_scalar, encode_scalar};
pub use sink::DatasetSink;
pub use values::{NO_VALUE, value_of, value_text};
pub use written::{MANIFESTS, Written, WrittenFile, manifest_folder, manifest_name, names_writer};

/// The column behind the table's own that says of each row whether it is new or was there before. Rows that say different things
/// are in different files.
pub const MARK: &str = "_tidemill_kept";
/// What it is of a row of the statement, an `Int8`; any other number is of one that was there before.
pub const NEW: i8 = 0;

/// A row's partition: values by column, as Delta Lake writes them.
pub type PartitionValues = BTreeMap<String, Option<String>>;

/// What the tasks of a run write.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetWrite {
    /// The table's folder as a URL that ends with `/`.
    pub location: String,
    /// All columns of the table.
    pub schema: SchemaRef,
    /// The columns that divide it.
    pub partition_by: Vec<String>,
    /// Where new rows may be.
    pub within: Within,
    /// A file that has grown to this is closed, and the next one begun.
    pub file_bytes: u64,
    /// Whether rows that were there before come, too: what comes then has the column [`MARK`] behind the table's own.
    pub keeps: bool,
    /// Whose files they are: no other plan ever writes under this name, in any table, of any cluster.
    pub writer: String,
}

/// Which rows may be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Within {
    /// All.
    Everything,
    /// Those of these partitions; columns that one does not name may have any value.
    Partitions(Vec<PartitionValues>),
    /// Those whose column is from `from` to before `to`.
    Interval {
        /// The column.
        column: String,
        /// Its least value, in its own type.
        from: ScalarValue,
        /// The first value that is beyond.
        to: ScalarValue,
    },
}

impl DatasetWrite {
    /// The table's folder.
    ///
    /// # Errors
    /// It is no URL.
    pub fn folder(&self) -> Result<ListingTableUrl> {
        ListingTableUrl::parse(&self.location)
    }
}
