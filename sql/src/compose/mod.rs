//! Processes, composed of coordinator and executor.

mod coordinator;
mod embedded;
mod executor;
mod limits;

pub use coordinator::{CoordinatorProcess, CoordinatorServer, Listener};
pub use embedded::{Embedded, EmbeddedConfig};
pub use executor::{ExecutorProcess, ExecutorServer};
pub use limits::{default_memory, default_slots, default_work_dir, parse_memory};
