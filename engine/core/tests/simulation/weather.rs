//! What a seed is like: how much goes wrong in it.

use tidemill_core::Settings;

use crate::rng::Rng;

/// How much goes wrong in a seed. Chances are per mille.
#[derive(Debug)]
pub(crate) struct Weather {
    /// When faults end, in virtual milliseconds.
    pub(crate) calm_at: u64,
    /// While runs are under way, an executor crashes, hangs or loses its stream this often on average; 0 is never.
    pub(crate) fault_every: u64,
    /// That an output is put into the store.
    pub(crate) durable: u64,
    /// That a fault meets the leader.
    pub(crate) leader: u64,
    /// That an attempt fails and may be retried.
    pub(crate) unavailable: u64,
    /// That an attempt fails for good.
    pub(crate) invalid: u64,
    /// That a run's plan, or the delivery of its result, fails.
    pub(crate) failing_runs: u64,
    /// That a message arrives twice.
    pub(crate) doubled: u64,
    /// That an attempt takes seconds.
    pub(crate) slow: u64,
    /// That a task that should give the same rows again does not.
    pub(crate) differs: u64,
    /// That the store takes seconds to create an object of the log.
    pub(crate) late_store: u64,
    /// That it does not say whether it did.
    pub(crate) lying_store: u64,
    /// That an executor forgets an attempt.
    pub(crate) forgets: u64,
}

impl Weather {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let calm_at = rng.between(5_000, 60_000);
        let calm = rng.chance(150);
        let unless_calm = |value: u64| if calm { 0 } else { value };
        let leader = *rng.pick(&[0, 0, 100, 500]).unwrap();
        // What a leader did not write down it cannot compare with.
        let differs = if leader == 0 { *rng.pick(&[0, 0, 100]).unwrap() } else { 0 };
        Self {
            calm_at,
            fault_every: unless_calm(*rng.pick(&[0, 300, 1_000, 3_000, 10_000]).unwrap()),
            durable: *rng.pick(&[0, 500, 1_000]).unwrap(),
            leader,
            unavailable: unless_calm(*rng.pick(&[0, 0, 20, 150]).unwrap()),
            invalid: unless_calm(*rng.pick(&[0, 0, 0, 5]).unwrap()),
            failing_runs: unless_calm(*rng.pick(&[0, 50]).unwrap()),
            doubled: *rng.pick(&[0, 50, 300]).unwrap(),
            slow: *rng.pick(&[0, 200, 700]).unwrap(),
            differs,
            late_store: *rng.pick(&[0, 0, 50, 300]).unwrap(),
            lying_store: *rng.pick(&[0, 0, 50, 200]).unwrap(),
            forgets: unless_calm(*rng.pick(&[0, 0, 0, 30]).unwrap()),
        }
    }

    /// Whether every task must have run exactly once.
    pub(crate) fn is_calm(&self) -> bool {
        [self.fault_every, self.unavailable, self.invalid, self.failing_runs, self.forgets] == [0; 5]
    }
}

/// Scheduler settings that a cluster might have.
pub(crate) fn settings(rng: &mut Rng) -> Settings {
    Settings {
        no_executor_timeout_ms: *rng.pick(&[20_000, 60_000]).unwrap(),
        run_history: *rng.pick(&[1, 1_000]).unwrap(),
        active_runs: *rng.pick(&[1, 2, 16]).unwrap(),
        unread_runs: *rng.pick(&[0, 1, 100]).unwrap(),
        straggler_ms: *rng.pick(&[2_000, 10_000]).unwrap(),
        ..Settings::default()
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened in one seed, or in all of them.
        #[derive(Debug, Default, Clone)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: u64),* }

        impl Counts {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// What never happened.
            pub(crate) fn missing(&self) -> Vec<&'static str> {
                [$((stringify!($name), self.$name)),*].into_iter().filter(|(_, n)| *n == 0).map(|(n, _)| n).collect()
            }
        }
    };
}

counts! {
    /// Scheduler steps.
    steps,
    /// Attempts given out.
    attempts,
    /// Processes that died.
    crashes,
    /// Processes that stopped for a while or for good.
    freezes,
    /// Streams that broke under a living process.
    disconnects,
    /// Executors that came back in the same life.
    returns,
    /// Executors that came back too late and started a new life.
    dismissals,
    /// Messages that arrived twice.
    duplicates,
    /// Messages that were lost with their stream.
    lost_messages,
    /// Attempts that failed by themselves.
    failed_attempts,
    /// Attempts lost with their executor.
    lost_with_executor,
    /// Attempts lost because an input was.
    lost_with_input,
    /// Attempts lost with the message that launched them.
    lost_with_message,
    /// Attempts rolled back.
    rolled_back_attempts,
    /// Outputs rolled back.
    rolled_back_outputs,
    /// Attempts that gave other rows than before.
    differing,
    /// Second attempts of tasks that took long, and those that were quicker than the first.
    raced,
    overtaken,
    /// Outputs that vanished.
    lost_outputs,
    /// Results found incomplete while they were read.
    lost_results,
    /// Leaders that died.
    leader_crashes,
    /// Records that were lost with them.
    lost_records,
    /// Batches that the store took seconds for, and those of which it did not say what became.
    late_writes,
    lying_writes,
    /// Batches of dead leaders that landed all the same, and those that found a seal in their place.
    orphaned_writes,
    fenced_writes,
    /// Snapshots that could not be read.
    damaged_snapshots,
    /// Attempts that executors forgot, and those found out by it.
    forgotten,
    found_forgotten,
    /// Changes of the catalogue.
    changes,
    /// Runs that began again under another build.
    restarts,
    /// Runs that clients submitted again after that.
    resubmitted,
    /// Attempts that a leader took over without knowing of their launch.
    adopted,
    /// Outputs read from the store because their holder was gone.
    read_from_packs,
    /// Runs whose effect was published, once or more.
    published,
    /// Intervals of jobs whose runs were published, and those of them that had failed before.
    intervals,
    intervals_retried,
    /// Results delivered.
    delivered,
    /// Results that their clients did not read before others had ended.
    unread,
    /// Runs that ended well.
    succeeded,
    /// Runs cancelled.
    cancelled,
    /// Runs failed by an error of the planner, a task or the delivery.
    failed,
    /// Runs failed by a task that outlived too many executors.
    poisoned,
    /// Runs failed because no executor came.
    unserved,
    /// Seeds in which nothing went wrong.
    calm_seeds,
}
