//! Runs tasks, and holds and serves the exchange data they write.
//!
//! - [`Executor`] is the process: an `io` runtime (its caller's) for control and Flight, a `cpu` runtime for tasks, so
//!   that full slots never delay a heartbeat;
//! - `agent` speaks with the coordinator; `task` runs one attempt; `store` holds its output; `service` serves it;
//!   `packer` puts it into the object store.
//!
//! Invariant: an executor decides nothing. It refuses messages of an epoch lower than the highest it has seen.

mod agent;
mod blobs;
mod journal;
mod link;
mod memory;
mod packer;
mod process;
mod service;
mod store;
mod task;
mod trim;
mod waiting;
mod work_dir;

pub use link::GrpcLink;
pub use memory::MemoryLimits;
pub use process::{Executor, ExecutorConfig, ExecutorShared};
pub use service::BlockService;
pub use store::BlockStore;
