//! DataFusion's DataFrames on the engine, without a server.
//!
//! ```sh
//! cargo run -p tidemill-examples --bin dataframe
//! ```
//!
//! `tidemill::local()` starts a coordinator and an executor inside this process. The session that it gives is used like
//! DataFusion's `SessionContext`: replace `SessionContext::new()` by these two lines, and what follows stays as it is.

use std::error::Error;

use datafusion::functions_aggregate::expr_fn::{avg, count, sum};
use datafusion::functions_window::expr_fn::rank;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let session = tidemill::local().start().await?;

    // Some data: half a million sales as Parquet, in a folder that is removed at the end.
    let folder = tempfile::tempdir()?;
    let sales = folder.path().join("sales").display().to_string();
    let made = session
        .sql(
            "SELECT value AS id, 'shop ' || (value % 40) AS shop, value % 7 AS weekday, \
             CAST(value * 37 % 1000 AS DOUBLE) / 10 AS price FROM generate_series(1, 500000)",
        )
        .await?;
    made.write_parquet(&format!("{sales}/"), Default::default(), None).await?;

    // Read it as with DataFusion. Columns are looked up here; rows are read where the query runs.
    let sales = session.read_parquet(sales, ParquetReadOptions::default()).await?;
    println!("{} sales", sales.clone().count().await?);

    // The best three weekdays of the shops with the highest turnover.
    let turnover = sales.aggregate(
        vec![col("shop"), col("weekday")],
        vec![sum(col("price")).alias("turnover"), avg(col("price")).alias("mean"), count(col("id")).alias("sales")],
    )?;
    let place = rank()
        .partition_by(vec![col("shop")])
        .order_by(vec![col("turnover").sort(false, true)])
        .build()?
        .alias("place");
    let best = turnover
        .window(vec![place])?
        .filter(col("place").lt_eq(lit(3)))?
        .sort(vec![col("turnover").sort(false, true), col("shop").sort(true, true), col("weekday").sort(true, true)])?
        .limit(0, Some(9))?;
    best.clone().show().await?;

    // How it ran: stages, the tasks of each, and what went between them.
    println!("{}", best.explain(false, true)?.to_string().await?);

    // The engine keeps a history, which is a table.
    session.sql("SELECT statement, state, rows, tasks FROM system.runs ORDER BY submitted_at").await?.show().await?;
    Ok(())
}
