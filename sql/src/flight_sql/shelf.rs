//! Things that clients come back for.
//!
//! Invariant: there are never more than the bound, and nothing stays that nobody came for in time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidemill_core::{Error, Result};

/// Things by the names that clients have for them.
pub(super) struct Shelf<T> {
    /// What they are, in the plural.
    what: &'static str,
    most: usize,
    patience: Duration,
    things: Mutex<BTreeMap<String, (Instant, T)>>,
}

impl<T> Shelf<T> {
    pub(super) const fn new(what: &'static str, most: usize, patience: Duration) -> Self {
        Self { what, most, patience, things: Mutex::new(BTreeMap::new()) }
    }

    fn things(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, T)>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room_in(&self, there: usize) -> Result<()> {
        match there < self.most {
            true => Ok(()),
            false => {
                let (most, what) = (self.most, self.what);
                Err(Error::resources_exhausted(format!("there are {most} {what} already: close some, or wait")))
            }
        }
    }

    /// Puts a thing here that nothing else is called like.
    pub(super) fn put(&self, name: String, thing: T) -> Result<()> {
        let mut things = self.things();
        self.room_in(things.len())?;
        things.insert(name, (Instant::now(), thing));
        Ok(())
    }

    /// Puts a thing where another was put to keep its place.
    pub(super) fn replace(&self, name: String, thing: T) {
        self.things().insert(name, (Instant::now(), thing));
    }

    /// Looks at a thing, or changes it; it was used then.
    pub(super) fn with<R>(&self, name: &str, look: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.things().get_mut(name).map(|(used, thing)| {
            *used = Instant::now();
            look(thing)
        })
    }

    /// Takes a thing away.
    pub(super) fn take(&self, name: &str) -> Option<T> {
        self.things().remove(name).map(|(_, thing)| thing)
    }

    /// What `look` finds in all things, which are not used by that.
    pub(super) fn find<R>(&self, look: impl Fn(&T) -> Option<R>) -> Vec<R> {
        self.things().values().filter_map(|(_, thing)| look(thing)).collect()
    }

    /// Removes what was not used for too long; answers that.
    pub(super) fn give_up(&self) -> Vec<T> {
        self.give_up_at(Instant::now())
    }

    fn give_up_at(&self, now: Instant) -> Vec<T> {
        let mut things = self.things();
        let late: Vec<String> = things
            .iter()
            .filter(|(_, (used, _))| now.saturating_duration_since(*used) >= self.patience)
            .map(|(name, _)| name.clone())
            .collect();
        // What they do at their end is not done under the lock.
        late.iter().filter_map(|name| things.remove(name)).map(|(_, thing)| thing).collect()
    }
}

impl<T: Clone> Shelf<T> {
    /// The thing of a name; this one, if there is none.
    pub(super) fn get_or_put(&self, name: &str, thing: T) -> Result<T> {
        let mut things = self.things();
        if let Some((used, there)) = things.get_mut(name) {
            *used = Instant::now();
            return Ok(there.clone());
        }
        self.room_in(things.len())?;
        things.insert(name.to_owned(), (Instant::now(), thing.clone()));
        Ok(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_shelf_takes_nothing_until_something_is_taken_or_given_up() {
        let shelf = Shelf::new("things", 2, Duration::from_secs(60));
        assert_eq!(shelf.put("a".to_owned(), 1), Ok(()));
        assert_eq!(shelf.get_or_put("b", 2), Ok(2));
        assert_eq!(shelf.get_or_put("b", 3), Ok(2));
        assert!(shelf.put("c".to_owned(), 3).is_err_and(|e| e.message.contains("2 things")));
        shelf.replace("a".to_owned(), 4);
        assert_eq!(shelf.take("a"), Some(4));
        assert_eq!(shelf.put("c".to_owned(), 3), Ok(()));
        let before = Instant::now();
        while Instant::now() == before {}
        assert_eq!(shelf.with("b", |thing| *thing), Some(2));
        assert_eq!(shelf.give_up(), Vec::<i32>::new());
        assert_eq!(shelf.find(|thing| Some(*thing)), [2, 3]);
        assert_eq!(shelf.give_up_at(before + Duration::from_secs(60)), [3]);
        assert_eq!((shelf.with("b", |_| ()), shelf.with("c", |_| ())), (Some(()), None));
    }
}
