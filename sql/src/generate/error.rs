//! The error of data generation.

use std::io;
use std::num::ParseFloatError;
use std::path::PathBuf;

use parquet::errors::ParquetError;

use super::{MAX_SCALE, MIN_SCALE};

/// Why data could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The scale factor is out of range, or not a number.
    #[error("the scale factor {scale} is not between {} and {}", MIN_SCALE, MAX_SCALE)]
    Scale {
        /// The scale factor asked for.
        scale: f64,
    },
    /// The folder holds a complete set of tables at another scale.
    #[error("{} already holds TPC-H data at scale factor {found}, not {wanted}", .path.display())]
    OtherScale {
        /// The folder.
        path: PathBuf,
        /// The scale factor of the data in it.
        found: f64,
        /// The scale factor asked for.
        wanted: f64,
    },
    /// The `_SUCCESS` file was not written by [`tpch`](super::tpch).
    #[error("{} does not hold a scale factor", .path.display())]
    Marker {
        /// The `_SUCCESS` file.
        path: PathBuf,
        /// What is wrong with its content.
        #[source]
        source: ParseFloatError,
    },
    /// A file or folder could not be created, read, renamed or removed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A table could not be encoded, or its file not be written.
    #[error("cannot write {} as Parquet", .path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: ParquetError,
    },
    /// The operating system refused another thread.
    #[error("cannot start a thread to write below {}", .path.display())]
    Thread {
        /// The folder of all tables.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A table generator has a bug.
    #[error("a thread panicked while writing below {}", .path.display())]
    Panicked {
        /// The folder of all tables.
        path: PathBuf,
    },
}
