//! A pipeline in two steps: raw events become clean ones, clean ones become totals.
//!
//! ```sh
//! cargo run -p tidemill-examples --bin steps
//! ```
//!
//! What a step writes appears whole or not at all: a file takes its name when it is complete, a folder has `_SUCCESS` when
//! it is. So the second step may read whatever it finds, and a step that failed may simply run again.

use std::error::Error;
use std::fmt::Write;

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::functions_aggregate::expr_fn::{count, count_distinct, sum};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::*;
use tidemill::Session;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("events.csv"), events()?)?;

    // Exchange data of this session needs to outlive nothing.
    let session = tidemill::local().set("tidemill.durability", "off").start().await?;
    clean(&session, &at("events.csv"), &at("clean/")).await?;
    total(&session, &at("clean/"), &at("totals.csv")).await?;
    println!("{}", std::fs::read_to_string(at("totals.csv"))?);

    // The folder is complete: it is not written over by accident.
    let again = clean(&session, &at("events.csv"), &at("clean/")).await;
    println!("once more: {}", again.err().ok_or("a complete folder was written over")?);
    Ok(())
}

/// Keeps the last state of each event, and only those with an amount.
async fn clean(session: &Session, from: &str, to: &str) -> datafusion::error::Result<()> {
    let events = session.read_csv(from, CsvReadOptions::new()).await?;
    let newest = row_number()
        .partition_by(vec![col("event")])
        .order_by(vec![col("version").sort(false, false)])
        .build()?
        .alias("newest");
    let clean = events
        .filter(col("amount").is_not_null())?
        .window(vec![newest])?
        .filter(col("newest").eq(lit(1)))?
        .drop_columns(&["newest", "version"])?;
    clean.write_parquet(to, DataFrameWriteOptions::new(), None).await?;
    Ok(())
}

/// Sums the events of each day, in the order of days, as one file.
async fn total(session: &Session, from: &str, to: &str) -> datafusion::error::Result<()> {
    let clean = session.read_parquet(from, ParquetReadOptions::default()).await?;
    let totals = clean
        .aggregate(
            vec![col("day")],
            vec![
                count(col("event")).alias("events"),
                count_distinct(col("customer")).alias("customers"),
                sum(col("amount")).alias("amount"),
            ],
        )?
        .sort(vec![col("day").sort(true, true)])?;
    totals.write_csv(to, DataFrameWriteOptions::new(), None).await?;
    Ok(())
}

/// Events of a week: some are corrected later, some have no amount.
fn events() -> Result<String, std::fmt::Error> {
    let mut events = "day,event,version,customer,amount\n".to_owned();
    for event in 0..20_000 {
        let (day, customer) = (event % 7 + 1, event * 31 % 500);
        let amount = if event % 50 == 0 { String::new() } else { (event % 90).to_string() };
        writeln!(events, "2026-11-{day:02},{event},0,{customer},{amount}")?;
        if event % 10 == 0 {
            writeln!(events, "2026-11-{day:02},{event},1,{customer},{}", event % 90 + 1)?;
        }
    }
    Ok(events)
}
