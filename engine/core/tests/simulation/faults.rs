//! What goes wrong.

use tidemill_core::ExecutorId;

use crate::executor::{Life, Link};
use crate::happening::Happening;
use crate::points::Side;
use crate::world::World;

impl World {
    /// Something happens to an executor that is well.
    pub(crate) fn fault(&mut self) {
        if self.rng.chance(self.weather.leader) {
            return self.leader_crashes();
        }
        let well: Vec<ExecutorId> =
            self.executors.iter().filter(|(_, e)| e.life == Life::Running).map(|(id, _)| id.clone()).collect();
        let Some(id) = self.rng.pick(&well).cloned() else { return };
        match self.rng.between(0, 9) {
            0..=3 => self.crash(&id),
            4..=6 => self.freeze(&id),
            _ => self.disconnect(&id),
        }
    }

    /// Whether an executor dies at a point, and with it what it was doing.
    pub(crate) fn executor_dies_at(&mut self, id: &ExecutorId, point: &'static str, side: Side) -> bool {
        let dies = self.points.kills(point, side);
        if dies {
            self.trace(|| format!("-- at {point}, {side:?}"));
            self.crash(id);
        }
        dies
    }

    fn crash(&mut self, id: &ExecutorId) {
        self.trace(|| format!("-- {id} crashes"));
        self.ledger.counts.crashes += 1;
        self.break_stream(id);
        self.end_life(id);
    }

    /// The coordinator gave the executor up: it starts a new life.
    pub(crate) fn dismiss(&mut self, id: &ExecutorId) {
        self.trace(|| format!("-- {id} is dismissed"));
        self.ledger.counts.dismissals += 1;
        self.end_life(id);
    }

    fn end_life(&mut self, id: &ExecutorId) {
        let executor = self.executors.get_mut(id).unwrap();
        executor.die();
        let slots = executor.slots;
        if self.rng.chance(800) {
            let delay = *self.rng.pick(&[100, 1_000, 5_000, 20_000, 70_000]).unwrap();
            self.after(delay, Happening::Join { slots });
        }
    }

    /// Stops the process, for a while or for good.
    fn freeze(&mut self, id: &ExecutorId) {
        self.ledger.counts.freezes += 1;
        self.break_stream(id);
        let until = if self.rng.chance(200) { u64::MAX } else { self.now + self.rng.between(50, 25_000) };
        self.trace(|| format!("-- {id} freezes until {until}"));
        self.executors.get_mut(id).unwrap().life = Life::Frozen { until };
        if until != u64::MAX {
            self.after(until - self.now, Happening::Connect(id.clone()));
        }
    }

    /// Breaks the stream under a process that goes on.
    fn disconnect(&mut self, id: &ExecutorId) {
        self.trace(|| format!("-- {id} is disconnected"));
        self.ledger.counts.disconnects += 1;
        self.break_stream(id);
        let delay = *self.rng.pick(&[5, 200, 2_000, 20_000]).unwrap();
        self.after(delay, Happening::Connect(id.clone()));
    }

    /// Some of the messages on their way are lost; the coordinator notices sooner or later.
    fn break_stream(&mut self, id: &ExecutorId) {
        let executor = self.executors.get_mut(id).unwrap();
        if executor.link == Link::Broken {
            return;
        }
        executor.link = Link::Broken;
        let stream = executor.stream;
        let on_the_way = |happening: &Happening| match happening {
            Happening::ToCoordinator { stream: Some((from, number)), .. } => from == id && *number == stream,
            Happening::ToExecutor { executor, stream: number, .. } => executor == id && *number == stream,
            _ => false,
        };
        let rng = &mut self.rng;
        let before = self.queue.len();
        self.queue.retain(|_, happening| !on_the_way(happening) || rng.chance(500));
        self.ledger.counts.lost_messages += (before - self.queue.len()) as u64;
        let delay = if self.rng.chance(300) { self.rng.between(500, 5_000) } else { self.rng.between(1, 50) };
        self.after(delay, Happening::StreamClosed { executor: id.clone(), stream });
    }

    /// Faults are over, and somebody is there to work.
    pub(crate) fn calm(&mut self) {
        self.trace(|| "-- calm".to_owned());
        self.points.disarm();
        let slots = self.rng.count(1, 4);
        self.join(slots);
    }
}
