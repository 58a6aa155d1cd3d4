//! What the clock does beside going on: leaders take over, and clocks are set back.

use super::Action;
use super::calendar::Calendar;
use super::deadlines;
use super::decide::Decider;
use super::jobs::next_fire;
use super::names::JobName;
use super::record::{Cursor, Record};
use super::spec::Trigger;
use super::state::{ActiveState, Job};
use crate::Millis;

/// A clock that is behind by less than this is waited for: those of two leaders may differ by as much.
const SLACK_MS: u64 = 60_000;

impl Decider<'_> {
    /// A new leader submits what is in progress again, because what the last one asked for may never have happened, and
    /// foretells fires again, because its rules of time zones may be newer.
    pub(super) fn restarted(&mut self) {
        self.look_at_clock();
        for name in self.jobs_where(|_| true) {
            let Some(job) = self.state.jobs.get(&name) else { continue };
            let foretold = next_fire(&job.spec, job.cursor.fired_to);
            if foretold != job.cursor.next_fire {
                let (due, skipped) = Default::default();
                let cursor = Cursor { next_fire: foretold, ..job.cursor };
                self.record(Record::Fired { job: name.clone(), due, skipped, cursor, at: self.now });
            }
            self.submit_again(&name);
        }
    }

    fn submit_again(&mut self, name: &JobName) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let runs =
            job.active.iter().map(|(index, active)| (*index, job.key(name, *index, active), active.state.clone()));
        for (index, run, state) in runs.collect::<Vec<_>>() {
            match state {
                ActiveState::Running => self.submit(name, index),
                ActiveState::Stopping { .. } => {
                    self.submit(name, index);
                    self.act(Action::Cancel { run });
                }
                ActiveState::Retrying { .. } => {}
            }
        }
    }

    /// Where the clock was ahead of time, what it had made due comes again; what was published stays.
    pub(super) fn look_at_clock(&mut self) {
        if self.now.0.saturating_add(SLACK_MS) >= self.state.clock.0 {
            return;
        }
        let jobs = self.state.jobs.iter().map(|(name, job)| (name.clone(), set_back(job, self.now)));
        let jobs = jobs.filter(|(name, cursor)| self.state.jobs.get(name).is_some_and(|job| job.cursor != *cursor));
        let jobs = jobs.collect();
        self.record(Record::ClockSetBack { at: self.now, jobs });
    }
}

fn set_back(job: &Job, now: Millis) -> Cursor {
    let Cursor { fired_to, next_fire: foretold, scheduled_to, judged_to } = job.cursor;
    let calendar: &Calendar = &job.calendar;
    let judged_to = judged_to.min(deadlines::passed(job, now));
    match job.spec.trigger {
        Trigger::Schedule { .. } if fired_to > now => Cursor {
            fired_to: now,
            next_fire: next_fire(&job.spec, now),
            scheduled_to: scheduled_to.min(calendar.complete_to(now)),
            judged_to,
        },
        Trigger::Schedule { .. } | Trigger::Update { .. } => {
            Cursor { fired_to: fired_to.min(now), next_fire: foretold, scheduled_to, judged_to }
        }
    }
}
