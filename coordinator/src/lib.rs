//! Makes decisions durable and carries them out.
//!
//! One task, the driver, owns the state: everything that happens becomes an [`Event`](tidemill_core::schedule::Event),
//! the pure scheduler applies records and answers with them and with actions. Records are handed to the log, and actions are
//! carried out when it has what they depend on.
//!
//! Invariant: nothing but the driver changes the state, and only `driver/actions.rs` carries out actions.

mod blobs;
mod delivery;
mod driver;
mod executors;
mod link;
pub mod log;
mod manifests;
mod runs;
mod service;
mod sweep;
mod webhooks;

pub use driver::{Coordinator, CoordinatorConfig, answer_columns};
pub use link::LocalLink;
pub use runs::{RunStream, StatementRequest};
pub use service::{Answers, ControlService, Messages, StatementService, messages};
pub use sweep::Sweeper;
