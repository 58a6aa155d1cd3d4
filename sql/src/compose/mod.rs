//! Processes, composed of coordinator and executor.

mod coordinator;
mod embedded;
mod executor;
mod late;
mod limits;
mod open_files;
mod standby;

pub use coordinator::{CoordinatorOptions, CoordinatorProcess, CoordinatorServer, Listener};
pub use embedded::{Embedded, EmbeddedConfig};
pub use executor::{ExecutorProcess, ExecutorServer};
pub use late::LateBlocks;
pub(crate) use limits::IDLE_THREAD;
pub use limits::{default_memory, default_slots, default_work_dir, parse_memory};
pub use open_files::raise_open_files;
