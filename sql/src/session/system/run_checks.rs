//! `system.run_checks`: what became of the checks of jobs' runs, for as long as the runs are in the history.

use tidemill_core::record::{Checked, JobRun, Run, State, Verdict};
use tidemill_core::{Millis, RunId};
use tidemill_engine::expect::violated;

use super::Columns;
use crate::jobs::condition_of;

type Row<'a> = (&'a RunId, &'a JobRun, Checked);

/// A row that was not as expected ended the run as it was written: the error tells of it.
fn of_error(run: &Run) -> Option<Checked> {
    let violated = violated(&run.error.as_ref()?.message)?;
    Some(Checked {
        condition: condition_of(&run.spec.statement, &violated.check)?,
        check: violated.check,
        verdict: Verdict::Failed,
        value: None,
        violations: Some(violated.rows),
        sample: Some(violated.sample),
    })
}

/// The checks of a job's run that came so far.
pub(super) fn of_run(run: &Run) -> impl Iterator<Item = Checked> {
    run.checks.iter().cloned().chain(of_error(run))
}

pub(super) fn rows(state: &State, _: Millis) -> Columns {
    let of_jobs = state.runs.iter().filter_map(|(id, run)| Some((id, run, run.spec.job.as_ref()?)));
    let rows: Vec<Row<'_>> =
        of_jobs.flat_map(|(id, run, job)| of_run(run).map(move |checked| (id, job, checked))).collect();
    let all = || rows.iter();
    let checks = || all().map(|(_, _, checked)| checked);
    Columns::default()
        .text("run_id", all().map(|(id, ..)| Some(id.0.clone())))
        .text("job", all().map(|(_, job, _)| Some(job.key.job.0.clone())))
        .time("interval_start", all().map(|(_, job, _)| Some(job.interval.start)))
        .time("interval_end", all().map(|(_, job, _)| Some(job.interval.end)))
        .text("check", checks().map(|checked| Some(checked.check.clone())))
        .text("condition", checks().map(|checked| Some(checked.condition.clone())))
        .text("state", checks().map(|checked| Some(checked.verdict.name())))
        .text("value", checks().map(|checked| checked.value.clone()))
        .count("violations", checks().map(|checked| checked.violations))
        .text("sample", checks().map(|checked| checked.sample.clone()))
}
