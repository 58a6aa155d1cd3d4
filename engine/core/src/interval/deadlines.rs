//! Deadlines: which have passed, and who is told.

use super::Notice;
use super::calendar::Calendar;
use super::decide::Decider;
use super::fires::first_due;
use super::ledger::Fate;
use super::names::JobName;
use super::record::Record;
use super::spans::Ranges;
use super::spec::{CatchUp, Deadline, Trigger};
use super::state::{Job, SuspendReason};
use super::zone::{CALENDAR_END, DAY_MS, Local, MINUTE_MS};
use crate::Millis;

impl Decider<'_> {
    pub(super) fn judge_deadlines(&mut self) {
        let now = self.now;
        // Who suspends a job knows it; who waits for its rows does not know that the machine did.
        let is_awaited = |job: &Job| job.suspended.as_ref().is_none_or(|s| s.reason != SuspendReason::ByUser);
        let has_passed = |job: &Job| is_awaited(job) && passed(job, now) > job.cursor.judged_to;
        for name in self.jobs_where(has_passed) {
            self.judge(name);
        }
    }

    fn judge(&mut self, name: JobName) {
        let Some(job) = self.state.jobs.get(&name) else { return };
        let judged_to = passed(job, self.now);
        let range = job.cursor.judged_to..judged_to;
        let mut late = Ranges::from(range.clone());
        // Nobody waits for what was skipped.
        late.remove_all(&job.ledger.which(range, |entry| entry.published > 0 || entry.fate == Fate::Skipped));
        let hull = late.hull().map(|hull| (job.calendar.interval(hull.start), job.calendar.interval(hull.end - 1)));
        let (to, count) = (job.spec.options.on_late.clone(), late.count());
        self.record(Record::DeadlinesPassed { job: name.clone(), judged_to, late, at: self.now });
        if let Some((first, last)) = hull {
            self.notify(&name, to, Notice::Late { first, last, count });
        }
    }
}

/// By when an interval should be published, where its job says so.
#[must_use]
pub fn deadline(job: &Job, index: u64) -> Option<Millis> {
    Some(match job.spec.options.deadline? {
        Deadline::After { ms } => Millis(job.calendar.interval(index).end.0.saturating_add(ms)),
        Deadline::Clock { minute } => clock_deadline(&job.calendar, index, minute),
    })
}

/// How many intervals, from the first, have deadlines that have passed.
pub(super) fn passed(job: &Job, now: Millis) -> u64 {
    let Some(deadline) = job.spec.options.deadline else { return 0 };
    match deadline {
        Deadline::After { ms } => job.calendar.complete_to(Millis(now.0.saturating_sub(ms))),
        Deadline::Clock { minute } => {
            // Deadlines follow each other as ends do, at most a day and what clocks are changed by behind them.
            let (mut low, mut high) =
                (job.calendar.complete_to(Millis(now.0.saturating_sub(3 * DAY_MS))), job.calendar.complete_to(now));
            while low < high {
                let middle = low + (high - low) / 2;
                if clock_deadline(&job.calendar, middle, minute) <= now {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        }
    }
}

/// How many intervals of a new job, from the first, nobody waits for: their deadlines have passed, or nothing will make them due.
pub(super) fn unawaited(job: &Job, now: Millis) -> u64 {
    let left_out = match job.spec.trigger {
        _ if job.spec.options.deadline.is_none() || job.spec.catch_up == CatchUp::All => 0,
        Trigger::Schedule { .. } => first_due(job),
        Trigger::Update { .. } => job.calendar.complete_to(now),
    };
    passed(job, now).max(left_out)
}

/// When the clocks first show a time of day at or after an interval's end.
fn clock_deadline(calendar: &Calendar, index: u64, minute: u32) -> Millis {
    let end = calendar.interval(index).end;
    let (shown, day) = (calendar.zone.local(end), 86_400_000);
    let time = i64::try_from(u64::from(minute) * MINUTE_MS).unwrap_or(0);
    let today = Local(shown.0.div_euclid(day) * day + time);
    let at = calendar.zone.instant(today);
    let at = if at < end { calendar.zone.instant(Local(today.0 + day)) } else { at };
    at.min(CALENDAR_END)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::super::{Length, Unit, Zone};
    use super::*;

    fn check(zone: &str, length: Length, start: &str, minute: u32, expected: &str) {
        let zone = Zone::parse(zone).unwrap();
        let calendar = Calendar { zone, length, start: Local::parse(start).unwrap() };
        assert_eq!(zone.show(clock_deadline(&calendar, 0, minute)), format!("{expected} {}", zone.name()));
    }

    #[test]
    fn a_deadline_is_the_next_time_that_clocks_show_it() {
        let day = Length { count: 1, unit: Unit::Day };
        let hour = Length { count: 1, unit: Unit::Hour };
        check("Europe/Berlin", day, "2026-05-01", 180, "2026-05-02 03:00");
        check("Europe/Berlin", day, "2026-05-01", 0, "2026-05-02 00:00");
        check("Europe/Berlin", hour, "2026-05-01 04:00", 180, "2026-05-02 03:00");
        check("Europe/Berlin", day, "2026-03-28", 150, "2026-03-29 03:00");
        check("Europe/Berlin", day, "2026-10-24", 150, "2026-10-25 02:30");
    }

    #[test]
    fn an_end_in_the_second_pass_waits_for_the_next_day() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let length = Length { count: 2, unit: Unit::Hour };
        let calendar = Calendar { zone, length, start: Local::parse("2026-10-25 01:30").unwrap() };
        // It ends at 02:30 for the second time.
        assert_eq!(zone.show(clock_deadline(&calendar, 0, 160)), "2026-10-26 02:40 Europe/Berlin");
    }
}
