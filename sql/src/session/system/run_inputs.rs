//! `system.run_inputs`: the versions of datasets that runs read, for as long as the runs are in the history.

use tidemill_core::record::{InputVersion, JobRun, Run, State};
use tidemill_core::{Millis, RunId};

use super::Columns;

type Row<'a> = (&'a RunId, Option<&'a JobRun>, &'a InputVersion);

/// What a run reads, in one text: `ads@3, clicks@12`.
pub(super) fn in_short(run: &Run) -> Option<String> {
    let shown: Vec<String> = run.inputs().iter().map(|input| format!("{}@{}", name(input), input.version)).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// As statements name it.
fn name(input: &InputVersion) -> &str {
    input.dataset.strip_prefix("public.").unwrap_or(&input.dataset)
}

pub(super) fn rows(state: &State, _: Millis) -> Columns {
    let rows: Vec<Row<'_>> = state
        .runs
        .iter()
        .flat_map(|(id, run)| run.inputs().iter().map(move |input| (id, run.spec.job.as_ref(), input)))
        .collect();
    let all = || rows.iter();
    let of_job = || all().map(|(_, job, _)| *job);
    Columns::default()
        .text("run_id", all().map(|(id, ..)| Some(id.0.clone())))
        .text("job", of_job().map(|j| j.map(|j| j.key.job.0.clone())))
        .time("interval_start", of_job().map(|j| j.map(|j| j.interval.start)))
        .time("interval_end", of_job().map(|j| j.map(|j| j.interval.end)))
        .text("dataset", all().map(|(.., input)| Some(name(input))))
        .count("version", all().map(|(.., input)| Some(input.version)))
        .text("location", all().map(|(.., input)| Some(input.location.clone())))
}
