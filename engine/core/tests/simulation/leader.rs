//! The leader's end and its successor's beginning: claim, seal, replay.

use tidemill_core::schedule::Event;
use tidemill_core::{Epoch, ExecutorId, RunId};

use crate::executor::{Life, Link};
use crate::happening::Happening;
use crate::invariants::ensure;
use crate::points::Side;
use crate::world::{Check, World};

pub(crate) const HOUR_MS: u64 = 3_600_000;
/// How often a leader says that it lives.
const RENEW_MS: u64 = 1_500;

impl World {
    /// What the leader takes for the time. Each has a clock of its own.
    pub(crate) const fn clock(&self) -> u64 {
        self.now + self.ahead
    }

    /// Whether the leader dies at a point, and with it what it was doing.
    pub(crate) fn leader_dies_at(&mut self, point: &'static str, side: Side) -> bool {
        let dies = self.points.kills(point, side);
        if dies {
            self.trace(|| format!("-- at {point}, {side:?}"));
            self.leader_crashes();
        }
        dies
    }

    /// The leader's process ends, with all it had not written. What it sent to the store may still land.
    pub(crate) fn leader_crashes(&mut self) {
        if !self.log.is_down {
            self.trace(|| "-- the leader crashes".to_owned());
            self.ledger.counts.leader_crashes += 1;
            self.ledger.counts.lost_records += self.log.at_risk();
        }
        self.log.is_down = true;
        let rng = &mut self.rng;
        self.queue.retain(|_, happening| match happening {
            Happening::ToCoordinator { stream: None, event } => {
                matches!(event, Event::Submitted { .. } | Event::Cancelled { .. })
            }
            Happening::ToCoordinator { .. }
            | Happening::StreamClosed { .. }
            | Happening::Heartbeat { .. }
            | Happening::ReadResult(_)
            | Happening::Publish(_)
            | Happening::LeaderStarts => false,
            Happening::ToExecutor { .. } | Happening::Put { .. } => rng.chance(500),
            _ => true,
        });
        self.deliveries.clear();
        self.streams.clear();
        self.closed.clear();
        self.watches.clear();
        for executor in self.executors.values_mut() {
            executor.link = Link::Broken;
        }
        let delay = *self.rng.pick(&[100, 1_000, 5_000, 20_000]).unwrap();
        self.after(delay, Happening::LeaderStarts);
    }

    /// The next leader: claims, seals, replays what is durable, then hears executors and clients.
    pub(crate) fn leader_starts(&mut self) -> Check {
        if self.leader_dies_at("epoch.claim", Side::Before) {
            return Ok(());
        }
        let epoch = self.log.store.epochs.last().map_or(1, |newest| newest + 1);
        self.log.store.epochs.insert(epoch);
        if self.leader_dies_at("epoch.claim", Side::After) {
            return Ok(());
        }
        let earlier: Vec<u64> = self.log.store.epochs.range(..epoch).copied().collect();
        for unsealed in earlier.into_iter().filter_map(|epoch| self.log.store.unsealed(epoch)).collect::<Vec<_>>() {
            if self.leader_dies_at("epoch.seal", Side::Before) {
                return Ok(());
            }
            self.log.store.seal(unsealed);
            if self.leader_dies_at("epoch.seal", Side::After) {
                return Ok(());
            }
        }
        let (state, found) = self.log.store.replay(&mut self.ledger.counts.damaged_snapshots)?;
        let history = std::mem::take(&mut self.log.store.history);
        self.ledger.rewind(&history);
        self.log.store.history = history;
        ensure!(state == self.ledger.replayed, "epoch {epoch} replayed from {found:?} what was not written");
        self.state = state;
        self.log.begin(epoch, found);
        self.write_snapshot()?;
        if self.log.is_down && !self.queue.values().any(|h| matches!(h, Happening::LeaderStarts)) {
            self.lead()?;
        }
        Ok(())
    }

    fn lead(&mut self) -> Check {
        self.log.is_down = false;
        self.ahead = *self.rng.pick(&[2 * HOUR_MS, HOUR_MS, 3 * HOUR_MS]).unwrap();
        let living: Vec<ExecutorId> =
            self.executors.iter().filter(|(_, e)| e.life == Life::Running).map(|(id, _)| id.clone()).collect();
        for executor in living {
            let delay = self.rng.between(1, 1_500);
            self.after(delay, Happening::Connect(executor));
        }
        self.submit_again();
        self.after(0, Happening::Renew { epoch: self.log.epoch });
        let build = self.rng.pick(&["1", "1", "1", "2"]).unwrap().to_string();
        self.step(Event::Elected { epoch: Epoch(self.log.epoch), build })
    }

    /// The leader renews its lease.
    pub(crate) fn renew(&mut self, epoch: u64) {
        if self.log.is_down || epoch != self.log.epoch {
            return;
        }
        if self.leader_dies_at("lease.renew", Side::Before) || self.leader_dies_at("lease.renew", Side::After) {
            return;
        }
        if self.now < self.weather.calm_at {
            self.after(RENEW_MS, Happening::Renew { epoch });
        }
    }

    /// Clients whose runs were lost with the leader submit them again.
    fn submit_again(&mut self) {
        let submitted = |run: &RunId| {
            self.queue.values().any(|happening| match happening {
                Happening::Submit(other) => other == run,
                Happening::ToCoordinator { event: Event::Submitted { run: other, .. }, .. } => other == run,
                _ => false,
            })
        };
        let is_lost = |run: &RunId| !self.state.runs.contains_key(run) && !self.ledger.has_ended(run);
        let of_clients = self.plans.keys().filter(|run| !self.runs_of_jobs.contains(*run));
        let lost = of_clients.filter(|run| is_lost(run) || self.ledger.is_unheard(run));
        let lost: Vec<RunId> = lost.filter(|run| !submitted(run)).cloned().collect();
        for run in lost {
            self.ledger.counts.resubmitted += 1;
            let delay = self.rng.between(1, 2_000);
            self.after(delay, Happening::Submit(run));
        }
    }

    /// Publishes what a run wrote, perhaps once more.
    pub(crate) fn publish(&mut self, run: &RunId) -> Check {
        let Some(intent) = self.state.runs.get(run).and_then(|r| r.intent.clone()) else { return Ok(()) };
        ensure!(self.log.store.intended.contains(run), "run {run} is published ahead of its intent");
        if self.leader_dies_at("publish.files", Side::Before) {
            return Ok(());
        }
        let version = self.commit_interval(run);
        let published = self.published.entry(run.clone()).or_insert_with(|| intent.winners.clone());
        ensure!(*published == intent.winners, "run {run} published {published:?} and then {:?}", intent.winners);
        self.ledger.counts.published += 1;
        // The files are there, and their marker follows.
        let points =
            [("publish.files", Side::After), ("publish.marker", Side::Before), ("publish.marker", Side::After)];
        if points.into_iter().any(|(point, side)| self.leader_dies_at(point, side)) {
            return Ok(());
        }
        self.tell_coordinator(
            None,
            &Event::ResultDelivered { run: run.clone(), rows: intent.rows, kept: None, version },
        );
        Ok(())
    }

    /// A run with effects has published exactly when it succeeded.
    pub(crate) fn check_published(&self) -> Check {
        for (run, plan) in &self.plans {
            let published = self.published.contains_key(run);
            let expected = plan.has_effects() && self.ledger.has_succeeded(run);
            ensure!(published == expected, "run {run} has published: {published}, it should be {expected}");
        }
        Ok(())
    }
}
