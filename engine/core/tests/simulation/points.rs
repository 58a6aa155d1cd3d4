//! Processes that die at a named point: before anything of its work was done, or when all was done and nobody told.

use std::collections::BTreeMap;

use tidemill_core::POINTS;

use crate::rng::Rng;

/// A side of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Before,
    After,
}

/// Points that few seeds pass.
const RARE: [&str; 5] = ["log.catalogue", "log.intent", "publish.files", "publish.marker", "sink.write"];

/// How often processes died at each point.
pub(crate) type Deaths = BTreeMap<(&'static str, Side), u64>;

/// Where somebody is to die in a seed, if anywhere.
#[derive(Debug, Default)]
pub(crate) struct Points {
    armed: Option<(&'static str, Side)>,
    /// How often that is passed first.
    passes: u64,
    pub(crate) deaths: Deaths,
}

impl Points {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let armed = rng.chance(600).then(|| {
            let side = if rng.chance(500) { Side::Before } else { Side::After };
            let points: &[&str] = if rng.chance(300) { &RARE } else { &POINTS };
            (*rng.pick(points).unwrap(), side)
        });
        Self { armed, passes: *rng.pick(&[0, 0, 1, 3]).unwrap(), deaths: Deaths::new() }
    }

    /// Whether whoever passes there dies.
    pub(crate) fn kills(&mut self, point: &'static str, side: Side) -> bool {
        debug_assert!(POINTS.contains(&point));
        if self.armed != Some((point, side)) {
            return false;
        }
        if self.passes > 0 {
            self.passes -= 1;
            return false;
        }
        self.armed = None;
        *self.deaths.entry((point, side)).or_default() += 1;
        true
    }

    /// Nobody dies from now on.
    pub(crate) const fn disarm(&mut self) {
        self.armed = None;
    }
}

/// The sides of points at which nobody died.
pub(crate) fn survived(deaths: &Deaths) -> Vec<(&'static str, Side)> {
    let sides = POINTS.iter().flat_map(|point| [(*point, Side::Before), (*point, Side::After)]);
    sides.filter(|side| !deaths.contains_key(side)).collect()
}
