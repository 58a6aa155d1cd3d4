//! The scheduler among model executors in virtual time: thousands of seeds, every invariant after every step.
//!
//! `TIDEMILL_SEEDS=N` runs more seeds; `TIDEMILL_SEED=K` runs one and prints what happens in it
//! (with `-- --nocapture` also where it holds). The other files of this folder's tests tell the scheduler one event at a
//! time.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]

mod accounts;
mod cluster;
mod commands;
mod content;
mod effects;
mod executor;
mod failures;
mod fairness;
mod faults;
mod graphs;
mod happening;
mod heartbeats;
mod history;
mod invariants;
mod jobs;
mod leader;
mod ledger;
mod log;
mod losses;
mod messages;
mod points;
mod races;
mod results;
mod rng;
mod scale;
mod sessions;
mod store;
mod stragglers;
mod unread;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use points::{Deaths, survived};
use weather::Counts;
use world::{Trace, run_seed};

#[test]
fn five_thousand_seeds_hold_every_invariant() {
    if let Some(seed) = number("TIDEMILL_SEED") {
        let counts = run_seed(seed, Trace::Printed);
        println!("seed {seed}: {counts:?}");
        assert!(counts.is_ok(), "seed {seed} failed: {}", counts.unwrap_err());
        return;
    }
    let seeds = number("TIDEMILL_SEEDS").unwrap_or(5_000);
    let (mut sum, mut deaths) = (Counts::default(), Deaths::new());
    let mut failures = Vec::new();
    for seed in 0..seeds {
        // A panic in the scheduler is a failed seed like any other.
        let result = catch_unwind(AssertUnwindSafe(|| run_seed(seed, Trace::Silent)));
        match result.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
            Ok((counts, of_seed)) => {
                sum.add(&counts);
                for (point, count) in of_seed {
                    *deaths.entry(point).or_default() += count;
                }
            }
            Err(why) => failures.push(format!(
                "seed {seed} failed: {why}; replay with \
                 TIDEMILL_SEED={seed} cargo test -p tidemill-core --test simulation"
            )),
        }
    }
    println!("{seeds} seeds: {sum:#?} deaths: {deaths:?}");
    let first: Vec<&str> = failures.iter().take(10).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {seeds} seeds failed\n{}", failures.len(), first.join("\n"));
    if seeds >= 5_000 {
        assert_eq!(sum.missing(), Vec::<&str>::new(), "the simulation no longer provokes these");
        assert_eq!(survived(&deaths), Vec::new(), "nobody dies at these points any more");
    }
}

#[expect(clippy::disallowed_methods, reason = "the number of seeds is the caller's business")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}
