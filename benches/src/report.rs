//! The report.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::latency::Latencies;
use crate::tpch::{Query, Split};

/// The middle of the times.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The time that so many percent of all took, at the most.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

/// The page.
pub(crate) fn markdown(scale: f64, repetitions: usize, queries: &[Query], latencies: &Latencies) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Benchmarks

Written by `cargo run --release -p tidemill-benches -- --scale {scale}`; do not edit. Of other things there are pages of their own:
[jobs](benchmarks-jobs.md), [Flight SQL](benchmarks-front-door.md), [durability](benchmarks-durable.md), [kills](benchmarks-kills.md).

- commit: {commit}
- machine: {machine}
- TPC-H at scale {scale}, warm, medians of {repetitions}; every answer was compared with DataFusion's
- *DataFusion*: 55.2 in one process, 2 partitions, its own defaults
- *embedded*: coordinator and executor in one process, 2 slots, blocks by reference
- *two executors*: a coordinator and two executors of one slot as processes on this machine, over Arrow Flight

| query | DataFusion | embedded | ratio | two executors | ratio | exchanged | remote |
|---|---:|---:|---:|---:|---:|---:|---:|
",
        commit = commit(),
        machine = machine(),
    );
    for q in queries {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {} | {:.2} | {:.1} MiB | {:.1} MiB |",
            q.name,
            ms(q.oracle),
            ms(q.embedded),
            ratio(q.embedded, q.oracle),
            ms(q.cluster),
            ratio(q.cluster, q.oracle),
            q.exchanged_bytes / f64::from(1 << 20),
            q.remote_bytes / f64::from(1 << 20),
        );
    }
    totals(&mut text, queries);
    splits(&mut text, queries);
    let _ = write!(
        text,
        "
## Latency

| what | median |
|---|---:|
| `SELECT 1` on a running cluster of two executors | {} |
| `tidemill sql -c 'SELECT 1'`, process start to end | {} |
| q06 on two executors, alone | {} |
| q06 while q18 runs again and again: **{:.1}** times as long | {} |
",
        ms(latencies.running),
        ms(latencies.cold),
        ms(latencies.short.0),
        ratio(latencies.short.1, latencies.short.0),
        ms(latencies.short.1),
    );
    text
}

fn totals(text: &mut String, queries: &[Query]) {
    let sum = |of: fn(&Query) -> Duration| queries.iter().map(of).sum::<Duration>();
    let (oracle, embedded, cluster) = (sum(|q| q.oracle), sum(|q| q.embedded), sum(|q| q.cluster));
    let _ = writeln!(
        text,
        "| **sum** | {} | {} | **{:.2}** | {} | **{:.2}** | | |",
        ms(oracle),
        ms(embedded),
        ratio(embedded, oracle),
        ms(cluster),
        ratio(cluster, oracle)
    );
    let mean = |of: fn(&Query) -> f64| (queries.iter().map(|q| of(q).ln()).sum::<f64>() / queries.len() as f64).exp();
    let _ = writeln!(
        text,
        "| **geometric mean** | | | **{:.2}** | | **{:.2}** | | |",
        mean(|q| ratio(q.embedded, q.oracle)),
        mean(|q| ratio(q.cluster, q.oracle))
    );
}

fn of(query: &Query, side: &str) -> Split {
    if side == "embedded" { query.embedded_split } else { query.cluster_split }
}

/// Where the time went, over all queries.
fn splits(text: &mut String, queries: &[Query]) {
    let _ = write!(
        text,
        "
## Where the time goes

Seconds of all tasks over the 22 queries, of the last repetition. *exchange* is partitioning and storing output, *wait*
is waiting for input. *schedule* is what is left of the time that attempts held a slot: launching, decoding plans,
reporting.

| | scan | operators | encode | exchange | wait | schedule | held a slot |
|---|---:|---:|---:|---:|---:|---:|---:|
"
    );
    for name in ["embedded", "two executors"] {
        let mut sum = [0.0; 6];
        for query in queries {
            for (total, part) in sum.iter_mut().zip(of(query, name).0) {
                *total += part;
            }
        }
        let [scan, operators, encode, exchange, wait, held] = sum;
        let rest = (held - scan - operators - exchange - wait).max(0.0);
        let _ = writeln!(
            text,
            "| {name} | {scan:.2} | {operators:.2} | {encode:.2} | {exchange:.2} | {wait:.2} | {rest:.2} | {held:.2} |"
        );
    }
}

pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

pub(crate) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, m)| m.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {model}")
}

/// The commit, and whether anything but reports differs from it.
pub(crate) fn commit() -> String {
    let name = output("git", &["describe", "--always", "--abbrev=12", "--exclude=*"]);
    let changed = output("git", &["diff", "--name-only", "HEAD", "--", ".", ":!docs"]);
    if changed.is_empty() { name } else { format!("{name}-dirty") }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(51));
        assert_eq!(percentile(&times, 99), Duration::from_millis(100));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(100));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
