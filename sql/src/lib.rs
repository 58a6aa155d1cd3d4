//! Tidemill: SQL and DataFrames over Arrow data that survive the loss of any process.
//!
//! # DataFrames
//!
//! [`local()`] and [`connect()`] begin a [`Session`], which is used like DataFusion's
//! [`SessionContext`](datafusion::prelude::SessionContext): the same methods, the same `DataFrame`s, the same results.
//! What differs is where queries run.
//!
//! ```no_run
//! use datafusion::functions_aggregate::expr_fn::sum;
//! use datafusion::prelude::*;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Coordinator and executor inside this process; `tidemill::connect("http://10.0.0.1:7878")` is a cluster elsewhere.
//! let session = tidemill::local().start().await?;
//! let orders = session.read_parquet("orders/", ParquetReadOptions::default()).await?;
//! let totals = orders
//!     .filter(col("price").gt(lit(10)))?
//!     .aggregate(vec![col("customer")], vec![sum(col("price")).alias("total")])?
//!     .sort(vec![col("total").sort(false, true)])?;
//! totals.clone().show().await?;
//! totals.write_parquet("totals/", Default::default(), None).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A query is optimised here and planned, run and repeated there: killing any process of the cluster costs time, never
//! rows. Dropping a stream before its end cancels its run. `EXPLAIN`, or `explain()`, draws the run's stages.
//!
//! # Tables
//!
//! SQL about the catalogue goes to the cluster, for all its clients; what is registered in a session stays in it:
//!
//! ```no_run
//! use datafusion::prelude::*;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let session = tidemill::local().start().await?;
//! // Of the cluster: any client may read it by name, and so may `session.table("orders")`.
//! session.sql("CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 's3://shop/orders/'").await?;
//! // Of this session: it travels with the plans that read it.
//! session.register_csv("rates", "rates.csv", CsvReadOptions::default()).await?;
//! let joined = session.sql("SELECT * FROM orders JOIN rates USING (currency)").await?;
//! # joined.show().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Tables in this process's memory travel with all their rows, up to 64 MiB for a plan. Table providers of your own stay
//! where they are: plans that read them are refused.
//!
//! # Functions
//!
//! Plans name functions. Those of your own are compiled into one binary of yours, which is client, coordinator and
//! executor alike:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use datafusion::arrow::datatypes::DataType;
//! use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
//!
//! fn functions() -> tidemill::Functions {
//!     let same = |arguments: &[ColumnarValue]| Ok(arguments[0].clone());
//!     let same = create_udf("same", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(same));
//!     tidemill::Functions::new().with_scalar(same)
//! }
//!
//! // `my-tidemill server`, `my-tidemill executor --connect …`, `my-tidemill sql -c 'SELECT same(1)'`
//! fn main() -> ExitCode {
//!     tidemill::cli::main_with(&functions())
//! }
//! # async fn example() -> tidemill::Result<()> {
//! // A client that builds plans with them, here with a cluster of its own.
//! let session = tidemill::local().functions(functions()).start().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Statements
//!
//! [`client::Client`] sends statements and gets batches, without DataFusion's types; [`Session::client`] is one.
//!
//! ```no_run
//! # async fn example() -> tidemill::Result<()> {
//! let mut client = tidemill::client::Client::embedded(tidemill::compose::EmbeddedConfig::default())?;
//! let batches = client.execute("SELECT 1 AS one").await?.collect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where what is
//!
//! - [`dataframe`] — sessions;
//! - [`client`] — statements in, batches out, against a cluster or one embedded in this process;
//! - [`session`] — what a statement means: the planner that coordinators ask;
//! - [`compose`] — coordinators, executors and servers;
//! - [`security`] — who may call them, and which files they may touch;
//! - [`flight_sql`] — Arrow Flight SQL, for other clients;
//! - [`cli`] — the binary;
//! - [`generate`] — benchmark data.

pub mod cli;
pub mod client;
pub mod compose;
mod connectors;
pub mod dataframe;
mod datasets;
pub mod flight_sql;
pub mod generate;
mod jobs;
pub mod oracle;
pub mod output;
pub mod security;
pub mod session;
pub mod tpch;

pub use dataframe::{Session, SessionBuilder, connect, local};
pub use jobs::{BackfillBuilder, JobBuilder, JobHandle};
pub use tidemill_core::{Error, ErrorKind, Result};
pub use tidemill_engine::functions::Functions;
pub use tidemill_engine::secrets;
