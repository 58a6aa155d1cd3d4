//! DataFusion's `DataFrame`s, on the engine: a `SessionContext` whose queries run as runs of a cluster.
//!
//! ```text
//! DataFrame ── optimised here ──► plan in bytes ── submitted ──► run ──► stages … ──► batches
//! ```
//!
//! Invariant: this process reads no rows of its own accord. It optimises, and learns columns; the cluster does the rest.

mod catalogue;
mod cluster;
mod functions;
mod options;
mod outline;
mod planner;
mod run;
mod session;
mod stores;

pub use session::{Session, SessionBuilder, connect, local};
