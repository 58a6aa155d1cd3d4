//! Functions of your own, in every process of a cluster.
//!
//! ```sh
//! cargo run -p tidemill-examples --bin udf                                   # all of it
//! cargo run -p tidemill-examples --bin udf -- server                         # one role, as of the `tidemill` binary
//! cargo run -p tidemill-examples --bin udf -- sql -c 'SELECT fahrenheit(20.0)'
//! ```
//!
//! Plans name functions and never carry them, so the coordinator, which plans, and the executors, which call them, must
//! have them compiled in. `tidemill::cli::main_with` makes of a few lines such a binary, with all roles of the original.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udaf, create_udf,
};
use datafusion::prelude::*;

/// What every process knows: this one as a client, and its other roles.
fn functions() -> tidemill::Functions {
    tidemill::Functions::new().with_scalar(fahrenheit()).with_aggregate(spread())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    match std::env::args().len() {
        1 => run(),
        _ => Ok(tidemill::cli::main_with(&functions())),
    }
}

#[tokio::main]
async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let (_coordinator, url) = start(&["coordinator", "--bind", "127.0.0.1:0"])?;
    let (_first, _) = start(&["executor", "--connect", &url, "--slots", "1"])?;
    let (_second, _) = start(&["executor", "--connect", &url, "--slots", "1"])?;
    println!("a coordinator at {url}, and two executors of one slot");

    let session = tidemill::connect(&url).functions(functions()).start().await?;
    let measured = session
        .sql("SELECT value % 3 AS room, 18 + value % 11 AS celsius FROM range(0, 1000)")
        .await?
        .with_column("celsius", cast(col("celsius"), DataType::Float64))?;
    let rooms = measured
        .with_column("fahrenheit", fahrenheit().call(vec![col("celsius")]))?
        .aggregate(vec![col("room")], vec![spread().call(vec![col("fahrenheit")]).alias("spread")])?
        .sort(vec![col("room").sort(true, true)])?;
    rooms.show().await?;

    // The same functions in SQL that any client may send.
    let sent = session.client().query("SELECT fahrenheit(20.0) AS warm").await?;
    println!("{}", datafusion::arrow::util::pretty::pretty_format_batches(&sent.collect().await?)?);

    // A function that the cluster lacks is refused when the query is planned.
    session.register_udf(create_udf(
        "kelvin",
        vec![DataType::Float64],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| mapped(arguments, |celsius| celsius + 273.15)),
    ));
    let unknown = session.sql("SELECT kelvin(celsius) FROM (VALUES (20.0)) AS t(celsius)").await?.collect().await;
    println!("{}", unknown.err().ok_or("the cluster cannot know kelvin")?);
    Ok(ExitCode::SUCCESS)
}

/// `fahrenheit(celsius)`, of one row.
fn fahrenheit() -> ScalarUDF {
    let convert = |arguments: &[ColumnarValue]| mapped(arguments, |celsius| celsius * 1.8 + 32.0);
    let float = DataType::Float64;
    create_udf("fahrenheit", vec![float.clone()], float, Volatility::Immutable, Arc::new(convert))
}

fn mapped(arguments: &[ColumnarValue], convert: impl Fn(f64) -> f64) -> DataFusionResult<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let numbers = arrays.first().map(|array| array.as_primitive::<Float64Type>().iter()).into_iter().flatten();
    let converted: Float64Array = numbers.map(|number| number.map(&convert)).collect();
    Ok(ColumnarValue::Array(Arc::new(converted)))
}

/// `spread(x)`, an aggregate: the largest minus the smallest.
fn spread() -> AggregateUDF {
    let float = DataType::Float64;
    let accumulator =
        |_: AccumulatorArgs<'_>| -> DataFusionResult<Box<dyn Accumulator>> { Ok(Box::new(Spread::default())) };
    let state = Arc::new(vec![float.clone(), float.clone()]);
    let returned = Arc::new(float.clone());
    create_udaf("spread", vec![float], returned, Volatility::Immutable, Arc::new(accumulator), state)
}

#[derive(Debug, Default)]
struct Spread {
    ends: Option<(f64, f64)>,
}

impl Spread {
    fn widen(&mut self, values: &ArrayRef) {
        for value in values.as_primitive::<Float64Type>().iter().flatten() {
            let (low, high) = self.ends.unwrap_or((value, value));
            self.ends = Some((low.min(value), high.max(value)));
        }
    }
}

impl Accumulator for Spread {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        values.iter().for_each(|values| self.widen(values));
        Ok(())
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Ok(ScalarValue::Float64(self.ends.map(|(low, high)| high - low)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    /// What a task tells the next stage.
    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        let (low, high) = self.ends.unzip();
        Ok(vec![ScalarValue::Float64(low), ScalarValue::Float64(high)])
    }

    /// What several tasks told: ends of spreads are values, too.
    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        self.update_batch(states)
    }
}

/// A process of this binary, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a role of this binary and waits for the line that says where it listens.
fn start(arguments: &[&str]) -> Result<(Process, String), Box<dyn Error>> {
    let mut process = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
    let lines = process.stdout.take().map(BufReader::new).ok_or("no output")?.lines();
    let process = Process(process);
    for line in lines {
        if let Some((_, address)) = line?.split_once("is ready at ") {
            return Ok((process, address.split(';').next().unwrap_or_default().trim().to_owned()));
        }
    }
    Err("the process did not start".into())
}
