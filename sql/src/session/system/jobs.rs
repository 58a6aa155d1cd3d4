//! `system.jobs`: one row per job, with how far it has come.

use tidemill_core::Millis;
use tidemill_core::interval::{CatchUp, DatasetName, Job, Mode, Overlap, SuspendReason, Trigger};
use tidemill_core::record::State;

use super::Columns;

fn reason(job: &Job) -> String {
    match &job.spec.trigger {
        Trigger::Schedule { cron } => format!("cron {}", cron.as_str()),
        Trigger::Update { of } => format!("update of {}", names(of)),
    }
}

fn names(datasets: &[DatasetName]) -> String {
    datasets.iter().map(short).collect::<Vec<_>>().join(", ")
}

fn short(dataset: &DatasetName) -> String {
    dataset.0.strip_prefix("public.").unwrap_or(&dataset.0).to_owned()
}

const fn state(job: &Job) -> &'static str {
    match &job.suspended {
        None => "active",
        Some(_) => "suspended",
    }
}

fn why_suspended(job: &Job) -> Option<String> {
    Some(match job.suspended.as_ref()?.reason {
        SuspendReason::ByUser => "by a user".to_owned(),
        SuspendReason::Failures(failures) => format!("{failures} intervals failed in a row"),
        SuspendReason::Ledger => "its ledger is in too many pieces".to_owned(),
    })
}

/// Until when all is published, from START without a gap.
fn complete_until(job: &Job) -> Option<Millis> {
    let pieces = job.ledger.pieces_in(0..u64::MAX);
    let mut published = pieces.take_while(|(_, entry)| entry.published > 0).map(|(piece, _)| piece);
    let mut end = published.next().filter(|first| first.start == 0)?.end;
    for piece in published {
        if piece.start != end {
            break;
        }
        end = piece.end;
    }
    Some(job.calendar.boundary(end))
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::ReplaceInterval => "replace_interval",
        Mode::Append => "append",
    }
}

const fn overlap(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Forbid => "forbid",
        Overlap::Queue => "queue",
        Overlap::Replace => "replace",
    }
}

pub(super) fn rows(known: &State, _: Millis) -> Columns {
    let all = || known.jobs.jobs.values();
    let count = |of: fn(&Job) -> u64| all().map(move |job| Some(of(job)));
    Columns::default()
        .text("job", known.jobs.jobs.keys().map(|name| Some(name.0.clone())))
        .text("output", all().map(|job| Some(short(&job.spec.output))))
        .text("reason", all().map(|job| Some(reason(job))))
        .text("depends_on", all().map(|job| Some(names(&job.spec.depends_on)).filter(|names| !names.is_empty())))
        .text("time_zone", all().map(|job| Some(job.spec.zone.name())))
        .text("interval", all().map(|job| Some(job.spec.interval.to_string())))
        .text("start", all().map(|job| Some(job.calendar.start.to_string())))
        .flag("catchup", all().map(|job| Some(job.spec.catch_up == CatchUp::All)))
        .text("mode", all().map(|job| Some(mode(job.spec.options.mode))))
        .text("overlap", all().map(|job| Some(overlap(job.spec.options.overlap))))
        .text("state", all().map(|job| Some(state(job))))
        .text("suspended_because", all().map(why_suspended))
        .time("suspended_at", all().map(|job| job.suspended.as_ref().map(|suspended| suspended.since)))
        .time("next_fire", all().map(|job| job.cursor.next_fire.filter(|_| job.suspended.is_none())))
        .count("running", count(|job| job.active.len() as u64))
        .count("due", count(|job| job.due.count() + job.again.count() + job.requested.count()))
        .count("backfilled", count(|job| job.backfills.values().map(|backfill| backfill.remaining.count()).sum()))
        .count("failures", count(|job| job.failures.into()))
        .time("complete_until", all().map(complete_until))
        .time("created_at", all().map(|job| Some(job.created_at)))
        .text("owner", all().map(|job| job.spec.by.as_ref().map(|by| by.name.clone())))
        .text("statement", all().map(|job| Some(job.spec.statement.clone())))
}
