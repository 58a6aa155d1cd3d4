//! `system.runs`: one row per run, the finished ones up to the history's limit.

use tidemill_core::Millis;
use tidemill_core::graph::StageGraph;
use tidemill_core::record::{Run, State, Verdict};

use super::{Columns, run_checks, run_inputs};

/// How many checks led to what.
#[derive(Clone, Copy, Default)]
struct Checks {
    passed: u64,
    failed: u64,
    warned: u64,
}

impl Checks {
    /// Those of a run, if a job submitted it.
    fn of(run: &Run) -> Option<Self> {
        run.spec.job.as_ref()?;
        let mut counts = Self::default();
        for checked in run_checks::of_run(run) {
            match checked.verdict {
                Verdict::Passed => counts.passed += 1,
                Verdict::Failed => counts.failed += 1,
                Verdict::Warned => counts.warned += 1,
            }
        }
        Some(counts)
    }
}

pub(super) fn rows(state: &State, _: Millis) -> Columns {
    let all = || state.runs.values();
    let of_job = || all().map(|r| r.spec.job.as_ref());
    let metrics = || all().map(|r| r.totals.metrics);
    let judged: Vec<Option<Checks>> = all().map(Checks::of).collect();
    let checks = || judged.iter().copied();
    Columns::default()
        .text("run_id", state.runs.keys().map(|id| Some(id.0.clone())))
        .text("statement", all().map(|r| Some(r.spec.statement.clone())))
        .text("state", all().map(|r| Some(r.state.name())))
        .text("error", all().map(|r| r.error.as_ref().map(|e| e.message.clone())))
        .time("submitted_at", all().map(|r| Some(r.submitted_at)))
        .time("started_at", all().map(|r| r.started_at))
        .time("finished_at", all().map(|r| r.finished_at))
        .count("rows", all().map(|r| r.rows))
        .count("stages", all().map(|r| r.graph.as_ref().map(|g| g.stages.len() as u64)))
        .count("tasks", all().map(|r| r.graph.as_ref().map(StageGraph::tasks)))
        .seconds("task_seconds", all().map(|r| Some(r.totals.task_millis as f64 / 1e3)))
        .count("exchanged_bytes", metrics().map(|m| Some(m.bytes_out)))
        .count("remote_bytes", metrics().map(|m| Some(m.remote_bytes)))
        .count("spilled_bytes", metrics().map(|m| Some(m.spilled_bytes)))
        .count("encoded_bytes", metrics().map(|m| Some(m.encoded_bytes)))
        .count("durable_bytes", all().map(|r| Some(r.packs.iter().map(|p| p.bytes).sum())))
        .count("packs", all().map(|r| Some(r.packs.len() as u64)))
        .count("put_requests", all().map(|r| Some(r.packs.iter().map(|p| p.puts).sum())))
        .count("get_requests", metrics().map(|m| Some(m.get_requests)))
        .count("list_requests", metrics().map(|m| Some(m.list_requests)))
        .count("restarts", all().map(|r| Some(u64::from(r.restarts))))
        .count("recoveries", all().map(|r| Some(u64::from(r.totals.recoveries))))
        .seconds("repeated_task_seconds", all().map(|r| Some(r.totals.repeated_millis as f64 / 1e3)))
        .seconds("scan_seconds", metrics().map(|m| Some(m.scan_ns as f64 / 1e9)))
        .seconds("operator_seconds", metrics().map(|m| Some(m.operator_ns as f64 / 1e9)))
        .seconds("encode_seconds", metrics().map(|m| Some(m.encode_ns as f64 / 1e9)))
        .seconds("exchange_seconds", metrics().map(|m| Some(m.exchange_ns as f64 / 1e9)))
        .seconds("wait_seconds", metrics().map(|m| Some(m.wait_ns as f64 / 1e9)))
        .text("job", of_job().map(|j| j.map(|j| j.key.job.0.clone())))
        .time("interval_start", of_job().map(|j| j.map(|j| j.interval.start)))
        .time("interval_end", of_job().map(|j| j.map(|j| j.interval.end)))
        .number("generation", of_job().map(|j| j.map(|j| j.key.generation)))
        .number("attempt", of_job().map(|j| j.map(|j| j.key.attempt)))
        .text("cause", of_job().map(|j| j.map(|j| j.cause.name())))
        .text("input_versions", all().map(run_inputs::in_short))
        .count("output_version", all().map(|r| r.version))
        .count("rows_read", all().map(Run::rows_read))
        .count("rows_written", all().map(Run::published_rows))
        .count("checks_passed", checks().map(|c| c.map(|c| c.passed)))
        .count("checks_failed", checks().map(|c| c.map(|c| c.failed)))
        .count("checks_warned", checks().map(|c| c.map(|c| c.warned)))
        .count("rows_filtered", all().map(Run::rows_filtered))
        .count("rows_aggregated", all().map(Run::rows_aggregated))
        .count("groups", all().map(Run::groups))
        .count("rows_joined", all().map(Run::rows_joined))
}
