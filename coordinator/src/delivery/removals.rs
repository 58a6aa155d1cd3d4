//! What failed runs wrote is removed behind their ends: nobody waits for it but a process that ends.

use std::sync::Arc;
use std::time::Duration;

use tidemill_engine::planner::{Commit, Pass};
use tokio::sync::watch;

/// When the files are removed: a task that was told to stop may just then have finished one.
const PASSES: [(Duration, Pass); 3] =
    [(Duration::ZERO, Pass::Early), (Duration::from_millis(500), Pass::Early), (Duration::from_secs(5), Pass::Last)];
/// How long tasks have to stop where the process ends, and they with it.
const SETTLE: Duration = Duration::from_millis(100);

/// How many runs write what may have to be removed, and whether somebody waits for the last of them.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    under_way: usize,
    is_hurried: bool,
}

/// Runs that write files, until these are published or removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removals(Arc<watch::Sender<Known>>);

impl Removals {
    /// One more run writes.
    pub(super) fn begin(&self) -> Removal {
        self.0.send_modify(|known| known.under_way += 1);
        Removal(self.clone())
    }

    /// Lets removals come to an end at once, and waits for it: for runs that go on, too.
    pub(crate) async fn finish(&self) {
        self.0.send_modify(|known| known.is_hurried = true);
        let mut known = self.0.subscribe();
        // No error: the sender is this one.
        let _ = known.wait_for(|known| known.under_way == 0).await;
    }
}

/// A run that writes. Dropped when nothing is left to do.
#[derive(Debug)]
pub(super) struct Removal(Removals);

impl Removal {
    /// Removes what a failed run wrote.
    pub(super) async fn run(&self, commit: &dyn Commit) {
        let mut known = self.0.0.subscribe();
        let hurried = async {
            // No error: the sender is its own.
            let _ = known.wait_for(|known| known.is_hurried).await;
        };
        tokio::select! {
            () = in_passes(commit) => {}
            () = hurried => {
                tokio::time::sleep(SETTLE).await;
                commit.abort(Pass::Last).await;
            }
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.0.send_modify(|known| known.under_way = known.under_way.saturating_sub(1));
    }
}

async fn in_passes(commit: &dyn Commit) {
    for (pause, pass) in PASSES {
        tokio::time::sleep(pause).await;
        commit.abort(pass).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use tidemill_core::{Attempt, Result};

    use super::*;

    /// Remembers how it was removed.
    #[derive(Default)]
    struct Written(Mutex<Vec<Pass>>);

    #[async_trait]
    impl Commit for Written {
        async fn commit(&self, _: &[Attempt], _: bool) -> Result<Option<u64>> {
            Ok(None)
        }

        async fn abort(&self, pass: Pass) {
            self.0.lock().unwrap().push(pass);
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_removals_waits_for_a_last_pass_and_no_longer() {
        let (removals, written) = (Removals::default(), Arc::new(Written::default()));
        let (removal, of_run) = (removals.begin(), Arc::clone(&written));
        let removing = tokio::spawn(async move { removal.run(of_run.as_ref()).await });
        tokio::time::timeout(Duration::from_secs(3), removals.finish()).await.unwrap();
        removing.await.unwrap();
        assert_eq!(written.0.lock().unwrap().last(), Some(&Pass::Last));
        let published = removals.begin();
        assert!(tokio::time::timeout(SETTLE, removals.finish()).await.is_err(), "one writes");
        drop(published);
        removals.finish().await;
    }
}
