//! The coordinator's network services.

mod control;
mod statements;

pub use control::ControlService;
pub use statements::{Answers, Messages, StatementService, messages};
