//! The report.

use std::fmt::Write as _;
use std::time::Duration;

use super::interval::{Published, Turn};
use super::{CHECKS, EXECUTORS, Measured, Size, query};
use crate::report::{commit, machine, ms, percentile, ratio};

/// What the phases are, in their order. The first is the statement's own.
const PHASES: [&str; 5] = [
    "the statement, until the interval's run is accepted",
    "planned, until the first task begins",
    "tasks",
    "rows counted, checked and committed, until the version is there",
    "until the run has ended",
];

/// The page.
pub(super) fn page(size: Size, measured: &Measured) -> String {
    let Size { intervals, rows } = size;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Jobs: an interval, from its statement to its version

Written by `cargo run --release -p tidemill-benches -- --jobs --intervals {intervals} --interval-rows {rows}`; do not edit.

- commit: {commit}
- machine: {machine}
- a coordinator and {EXECUTORS} executors of one slot as processes, state, clicks and datasets on the local disk; durability `always`
- the job: `{job}`, into a dataset of Delta Lake's format; {intervals} intervals of {rows} clicks each, one after the other, after {warm_up} that
  warm up
- *checks*: `{CHECKS}`. Both look at what was written, before it is published
- what was published was compared with DataFusion's answer

## How long an interval takes

Of the jobs, from `EXECUTE JOB … FOR INTERVAL` until the new version is in the dataset's log, where every reader finds it; looked for each
millisecond. The others compute the same in turn with them: `SELECT` until the last row is there, `COPY` until its answer. *DataFusion*
runs in the client's process, in {EXECUTORS} partitions, and writes a Parquet file: there is no other process, no log and no version in its time,
and nothing is synced to the disk.

| | p50 | p99 | beside DataFusion, p50 |
|---|---:|---:|---:|
",
        commit = commit(),
        machine = machine(),
        job = query("ts >= $interval_start AND ts < $interval_end"),
        warm_up = size.warm_up(),
    );
    latencies(&mut text, &measured.turns);
    shares(&mut text, &measured.turns);
    let [half, most] = [50, 99].map(|p| ms(percentile(&measured.updates, p)));
    let [before, behind] = measured.memory.map(|bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)));
    let _ = write!(
        text,
        "
## `TRIGGER ON UPDATE OF`

From the version of the dataset that a job waits for, until that of the job, which sums it up: {intervals} intervals.

| p50 | p99 |
|---:|---:|
| {half} | {most} |

## The coordinator's memory

Peaks, with two runs or more for each of these intervals, and the questions to system tables that measured them.

| after the intervals that warm up | behind all |
|---:|---:|
| {before} | {behind} |
"
    );
    text
}

fn latencies(text: &mut String, turns: &[Turn]) {
    let of = |time: fn(&Turn) -> Duration| turns.iter().map(time).collect::<Vec<_>>();
    let alone = of(|turn| turn.alone);
    let sides = [
        ("a job with checks", of(|turn| turn.audited.latency)),
        ("the job without checks", of(|turn| turn.plain.latency)),
        ("`COPY` on the cluster", of(|turn| turn.copy)),
        ("`SELECT` on the cluster", of(|turn| turn.select)),
        ("in-process DataFusion, written as Parquet", alone.clone()),
    ];
    for (name, times) in sides {
        let [half, most] = [50, 99].map(|p| percentile(&times, p));
        let beside = ratio(half, percentile(&alone, 50));
        let _ = writeln!(text, "| {name} | {} | {} | {beside:.2} |", ms(half), ms(most));
    }
}

/// Where the time went, on average, in milliseconds: averages add up.
fn means<'a>(published: impl Iterator<Item = &'a Published>) -> [f64; 5] {
    let (mut sums, mut count) = ([0.0; 5], 0.0_f64);
    for one in published {
        count += 1.0;
        for (sum, phase) in sums.iter_mut().zip(one.phases.0) {
            *sum += phase;
        }
    }
    sums.map(|sum| sum / count.max(1.0))
}

/// What a run takes: all but the statement's own time.
fn whole(means: &[f64; 5]) -> f64 {
    means.iter().skip(1).sum()
}

/// What comes behind the last task.
fn behind_tasks(means: &[f64; 5]) -> f64 {
    means.iter().skip(3).sum()
}

fn shares(text: &mut String, turns: &[Turn]) {
    let _ = write!(
        text,
        "
## Where the time goes

Averages, from `system.runs` and `system.tasks`, in whole milliseconds each, and the moment at which the version was seen. A run
begins when it is accepted, which is before `EXECUTE JOB` is answered.

| | with checks | share | without | share |
|---|---:|---:|---:|---:|
"
    );
    let audited = means(turns.iter().map(|turn| &turn.audited));
    let plain = means(turns.iter().map(|turn| &turn.plain));
    let (all, all_plain) = (whole(&audited), whole(&plain));
    let share = |part: f64, of: f64| 100.0 * part / of.max(f64::MIN_POSITIVE);
    for ((number, name), (one, other)) in PHASES.iter().enumerate().zip(audited.into_iter().zip(plain)) {
        let _ = match number {
            0 => writeln!(text, "| {name} | {one:.1} ms | | {other:.1} ms | |"),
            _ => {
                let (of_one, of_other) = (share(one, all), share(other, all_plain));
                writeln!(text, "| {name} | {one:.1} ms | {of_one:.0} % | {other:.1} ms | {of_other:.0} % |")
            }
        };
    }
    let _ = writeln!(text, "| **the run** | {all:.1} ms | 100 % | {all_plain:.1} ms | 100 % |");
    let (behind, rest) = (behind_tasks(&audited), behind_tasks(&plain));
    let _ = write!(
        text,
        "
Checks, commit and accounting are what comes behind the last task: **{:.0} %** of a run with checks. The checks are what it takes
longer there than the same job without: {:.1} ms, **{:.0} %**. Counting rows, the version and what the coordinator's log must have before
and behind it are the rest: {rest:.1} ms, **{:.0} %**.
",
        share(behind, all),
        behind - rest,
        share(behind - rest, all),
        share(rest, all),
    );
}

#[cfg(test)]
mod tests {
    use super::super::interval::Phases;
    use super::*;

    #[test]
    fn shares_are_of_the_run_and_add_up() {
        let of = |phases| Published { latency: Duration::from_millis(90), phases: Phases(phases) };
        let turn = || Turn {
            audited: of([10.0, 20.0, 30.0, 40.0, 10.0]),
            plain: of([10.0, 20.0, 30.0, 20.0, 10.0]),
            select: Duration::from_millis(20),
            copy: Duration::from_millis(30),
            alone: Duration::from_millis(9),
        };
        let mut text = String::new();
        latencies(&mut text, &[turn(), turn()]);
        assert!(text.contains("| a job with checks | 90.0 ms | 90.0 ms | 10.00 |"), "{text}");
        shares(&mut text, &[turn(), turn()]);
        assert!(text.contains("| tasks | 30.0 ms | 30 % | 30.0 ms | 38 % |"), "{text}");
        assert!(text.contains("| **the run** | 100.0 ms | 100 % | 80.0 ms | 100 % |"), "{text}");
        assert!(text.contains("**50 %** of a run with checks"), "{text}");
        assert!(text.contains("20.0 ms, **20 %**") && text.contains("30.0 ms, **30 %**"), "{text}");
    }
}
