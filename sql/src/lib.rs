//! Tidemill: SQL over Arrow data that survives the loss of any process.
//!
//! This crate is what users touch, and where processes are composed:
//!
//! - [`session`] — what a statement means: the planner that coordinators ask;
//! - [`client`] — statements in, batches out, against a cluster or one embedded in this process;
//! - [`compose`] — coordinators, executors and servers;
//! - [`flight_sql`] — Arrow Flight SQL, for other clients;
//! - [`generate`] — benchmark data.
//!
//! ```no_run
//! # async fn example() -> tidemill::Result<()> {
//! let mut session = tidemill::client::Client::embedded(tidemill::compose::EmbeddedConfig::default())?;
//! let result = session.execute("SELECT 1 AS one").await?;
//! # Ok(())
//! # }
//! ```

pub mod cli;
pub mod client;
pub mod compose;
pub mod flight_sql;
pub mod generate;
pub mod oracle;
pub mod output;
pub mod session;
pub mod tpch;

pub use tidemill_core::{Error, ErrorKind, Result};
