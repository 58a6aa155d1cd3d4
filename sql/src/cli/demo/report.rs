//! What the demo shows.

use std::fmt::Arguments;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::cluster::Cluster;
use crate::cli::Done;
use crate::oracle::Difference;
use crate::output::size;

/// One query's outcome.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) rows: usize,
    pub(super) time: Duration,
    pub(super) alone: Duration,
    /// Stages, tasks, exchanged and remote bytes.
    pub(super) counts: [u64; 4],
    pub(super) difference: Option<Difference>,
}

/// Prints as the demo goes.
pub(super) struct Report {
    time: Duration,
    alone: Duration,
    queries: usize,
    different: usize,
}

impl Report {
    pub(super) fn begin(scale: f64, data: &Path, executors: u32) -> Self {
        line(format_args!(
            "TPC-H at scale {scale} on one coordinator and {executors} executors, each a process of its own."
        ));
        line(format_args!("Every answer is compared with the one that DataFusion gives in a single process."));
        line(format_args!("Data: {}", data.display()));
        Self { time: Duration::ZERO, alone: Duration::ZERO, queries: 0, different: 0 }
    }

    pub(super) fn header(&self, cluster: &Cluster) {
        let pids: Vec<String> = cluster.pids().iter().map(u32::to_string).collect();
        line(format_args!("Cluster: {} (processes {})\n", cluster.url(), pids.join(", ")));
        line(format_args!(
            "{:<6} {:>6} {:>9} {:>11} {:>7} {:>6} {:>10} {:>10}  {}",
            "query", "rows", "time", "DataFusion", "stages", "tasks", "exchanged", "remote", "equal"
        ));
    }

    pub(super) fn row(&mut self, row: &Row) {
        let [stages, tasks, exchanged, remote] = row.counts;
        let equal = if row.difference.is_none() { "yes" } else { "NO" };
        line(format_args!(
            "{:<6} {:>6} {:>9} {:>11} {:>7} {:>6} {:>10} {:>10}  {}",
            row.name,
            row.rows,
            seconds(row.time),
            seconds(row.alone),
            stages,
            tasks,
            size(exchanged),
            size(remote),
            equal
        ));
        if let Some(difference) = &row.difference {
            line(format_args!("       {difference}"));
        }
        self.time += row.time;
        self.alone += row.alone;
        self.queries += 1;
        self.different += usize::from(row.difference.is_some());
    }

    pub(super) fn end(self) -> Done {
        line(format_args!("{:<6} {:>6} {:>9} {:>11}\n", "sum", "", seconds(self.time), seconds(self.alone)));
        match self.different {
            0 => line(format_args!("All {} answers are DataFusion's.", self.queries)),
            n => line(format_args!("{n} of {} answers differ: please report this.", self.queries)),
        }
        if self.different == 0 { Done::Well } else { Done::Badly }
    }
}

/// A job is under way, and every process was killed.
pub(super) fn pulled(tasks: i64, in_store: i64, after: Duration) {
    line(format_args!("\nThe plug is pulled: a job of {tasks} tasks, and every process killed in the middle of it.\n"));
    line(format_args!("{:>9}  the coordinator and all executors are killed", seconds(after)));
    line(format_args!("{:>9}  {in_store} of {tasks} tasks are in the store", ""));
}

/// What became of it.
pub(super) struct Killed {
    pub(super) tasks: i64,
    /// How long starting everything again took.
    pub(super) down: Duration,
    /// Tasks that were begun after that.
    pub(super) again: usize,
    pub(super) time: Duration,
    pub(super) difference: Option<Difference>,
}

pub(super) fn killed(killed: &Killed) -> Done {
    let Killed { tasks, again, .. } = killed;
    line(format_args!("{:>9}  later the same commands run again", seconds(killed.down)));
    line(format_args!(
        "{:>9}  {again} tasks were begun; {} were saved",
        "",
        tasks - i64::try_from(*again).unwrap_or(0)
    ));
    line(format_args!("{:>9}  the waiting client has its answer\n", seconds(killed.time)));
    match &killed.difference {
        None => line(format_args!("The answer is DataFusion's.")),
        Some(difference) => line(format_args!("The answer differs: {difference}: please report this.")),
    }
    if killed.difference.is_none() { Done::Well } else { Done::Badly }
}

fn line(text: Arguments<'_>) {
    let mut out = std::io::stdout();
    // A closed output is no reason to leave processes behind.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
