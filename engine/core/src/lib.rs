//! The pure heart of Tidemill: what a coordinator decides, without doing any of it.
//!
//! Invariant: nothing here reads a clock, draws a random number, touches a file or a socket, spawns, or iterates in
//! an order that differs between two processes. Time and the outside world arrive as [`schedule::Event`]s, decisions
//! leave as [`schedule::Action`]s, and [`record::State`] changes only by applying [`record::Record`]s, so that a
//! replayed log ends in the state that wrote it.

mod access;
mod error;
pub mod graph;
mod id;
pub mod interval;
mod points;
pub mod record;
pub mod schedule;
mod settings;

pub use access::{Principal, Role};
pub use error::{Error, ErrorKind, Place, Result};
pub use id::{Attempt, BlobHash, Epoch, ExecutorId, Millis, RunId, SessionId, StageId, TaskId};
pub use points::{DATASET_POINTS, POINTS};
pub use settings::Settings;
