//! The report.

use std::fmt::Write as _;
use std::time::Duration;

use super::{EXECUTORS, POINT, Side, Size, Speed};
use crate::report::{commit, machine, ms, percentile, ratio};

/// The page.
pub(super) fn page(size: Size, speeds: &[Speed], sides: &[Side]) -> String {
    let Size { scale, rows, questions, clients, seconds, duckdb } = size;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# The front door: Flight SQL

Written by `cargo run --release -p tidemill-benches -- --front-door --scale {scale} --rows {rows} --questions {questions} \
--clients {clients} --seconds {seconds}{with}`; do not edit.

- commit: {commit}
- machine: {machine}
- TPC-H at scale {scale} as Parquet on the local disk; a coordinator and {EXECUTORS} executors of one slot as processes
- *client*: `arrow-flight`'s own client of Flight SQL over loopback, a connection each, in one more process on the same
  machine. What it takes to decode is in its times
- *without state*: nothing outlives the coordinator; *state on the local disk*: `--state file://…`, durability `always`

## One client

`SELECT 1`, and `{POINT}`, prepared once and given another value each time, in turns, {questions} of each. Times are from the
question to the last row: two calls for the first, three for the second, which sends its value first.

| | `SELECT 1`, p50 | p99 | prepared point query, p50 | p99 |
|---|---:|---:|---:|---:|
",
        commit = commit(),
        machine = machine(),
        with = if duckdb { " --with-duckdb" } else { "" },
    );
    for side in sides {
        let [one, slow_one] = [50, 99].map(|p| ms(percentile(&side.ones, p)));
        let [point, slow_point] = [50, 99].map(|p| ms(percentile(&side.points, p)));
        let _ = writeln!(text, "| {} | {one} | {slow_one} | {point} | {slow_point} |", side.name);
    }
    large(&mut text, speeds, duckdb);
    crowd(&mut text, size, sides);
    text
}

fn large(text: &mut String, speeds: &[Speed], has_duckdb: bool) {
    let rows = speeds.first().map_or(0, |speed| speed.fetched.rows);
    let _ = write!(
        text,
        "
## {rows} rows

Seven columns of `lineitem`, filtered, medians of five after one that warms up, every side in turn; all gave the same rows.
*DataFusion* runs in the client's process, in {EXECUTORS} partitions, and writes what it made as an Arrow IPC stream to nowhere:
there is no network, no second process and no decoding in its time.{duck}

| | time | rows/s | Arrow IPC | per second | DataFusion's speed |
|---|---:|---:|---:|---:|---:|
",
        duck = match has_duckdb {
            true => " So does DuckDB, with pyarrow, and in batches of a size of its own.",
            false => "",
        },
    );
    let alone = speeds.iter().find(|speed| speed.name.contains("DataFusion")).map_or(Duration::ZERO, |s| s.time);
    for Speed { name, fetched, time } in speeds {
        let seconds = time.as_secs_f64().max(1e-9);
        let mib = fetched.bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "| {name} | {} | {:.0} | {mib:.1} MiB | {:.0} MiB | {:.2} |",
            ms(*time),
            fetched.rows as f64 / seconds,
            mib / seconds,
            ratio(alone, *time),
        );
    }
}

fn crowd(text: &mut String, size: Size, sides: &[Side]) {
    let _ = write!(
        text,
        "
## {clients} clients for {seconds} s

Each asks `SELECT 1` and the point query in turns, again as soon as it has its answer. *Slowest client* and *fastest client*
are medians of one client each; *unfair* is the one by the other.

| | question | answers | per second | errors | p50 | p99 | fastest client | slowest client | unfair |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
",
        clients = size.clients,
        seconds = size.seconds,
    );
    for side in sides {
        for (question, of) in [("`SELECT 1`", &side.crowd.ones), ("point query", &side.crowd.points)] {
            let all = of.concat();
            let mut medians: Vec<Duration> = of.iter().map(|times| percentile(times, 50)).collect();
            medians.sort();
            let fastest = medians.first().copied().unwrap_or_default();
            let slowest = medians.last().copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | {question} | {} | {:.0} | {} | {} | {} | {} | {} | {:.2} |",
                side.name,
                all.len(),
                all.len() as f64 / side.crowd.time.as_secs_f64().max(1e-9),
                side.crowd.errors,
                ms(percentile(&all, 50)),
                ms(percentile(&all, 99)),
                ms(fastest),
                ms(slowest),
                ratio(slowest, fastest),
            );
        }
    }
    for side in sides {
        for message in &side.crowd.messages {
            let _ = writeln!(text, "\n{}: `{message}`", side.name);
        }
    }
    text.push_str(
        "\n## The coordinator's memory\n\n| | peak after the large answers | after the crowd |\n|---|---:|---:|\n",
    );
    for side in sides {
        let [rows, crowd] = side.memory.map(|bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)));
        let _ = writeln!(text, "| {} | {rows} | {crowd} |", side.name);
    }
}
