//! The exchange between stages: plan nodes that read and write it, its frames, and the traits of its transports.
//!
//! - [`ExchangeReaderExec`] and [`ExchangeWriterExec`] stand in stage plans;
//! - a *frame* is one batch, self-contained, encoded at most once ([`frame`]);
//! - a *block* is all frames of one (task, attempt, partition); an output's [`OutputFooter`] says what its blocks hold;
//! - [`BlockSource`] fetches blocks, [`BlockSink`] takes them; each has a twin inside the process.
//!
//! Invariant: a reader reads exactly the attempts its [`Manifest`] names, and compares what it read with the footer:
//! absence is an error, never an empty stream.

mod checksum;
mod claims;
mod codec;
mod direct;
pub mod frame;
mod kept;
mod manifest;
mod marker;
mod merged;
mod metered;
mod metrics;
mod pack;
mod pond;
mod reader;
mod remote;
mod resume;
mod source;
mod upload;
mod widths;
mod writer;

pub use codec::ExchangeNodes;
pub use kept::{KeptRows, ResultKeeper, read_kept_blob, result_name};
pub use manifest::{BlockFooter, Holder, Manifest, ManifestOutput, OutputFooter};
pub use marker::{ExchangeExec, Transfer};
pub use metrics::IoMetrics;
pub use pack::PackBuilder;
pub use pond::{Found, Pond, PondSlot, pack_name};
pub use reader::{ExchangeReaderExec, ReadMode};
pub use remote::FlightBlocks;
pub use source::{BlockRequest, BlockSink, BlockSource, BlockStream, BlockTransport, LocalBlocks, TaskIo};
pub use upload::PackUpload;
pub use writer::ExchangeWriterExec;
