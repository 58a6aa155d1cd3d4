//! The interval machine over years of virtual time: thousands of seeds, each step compared with a plain model of what it
//! should decide.
//!
//! `TIDEMILL_SEEDS=N` runs more seeds; `TIDEMILL_SEED=K` runs one and prints what happens in it
//! (with `-- --nocapture` also where it holds).

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]

mod acts;
mod check;
mod clocks;
mod dues;
mod end;
mod lateness;
mod mended;
mod model;
mod older;
mod progress;
#[path = "../simulation/rng.rs"]
mod rng;
mod runs;
mod scale;
mod shell;
mod stale;
mod stories;
mod stories_late;
mod stories_lateness;
mod stories_zones;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemill_core::interval::Event;
use world::{Counts, Trace, World};

/// What every run of all seeds must have met.
const MET: [&str; 28] = [
    "backfills",
    "backfills cancelled",
    "clocks set back",
    "clocks set forward",
    "crashes",
    "crashes that lost records",
    "datasets dropped",
    "ends told long after",
    "intervals asked for",
    "jobs altered",
    "jobs created",
    "jobs dropped",
    "jobs replaced",
    "jobs resumed",
    "jobs suspended",
    "late data",
    "late data of published intervals",
    "notices",
    "refused",
    "reports said again",
    "runs by hand",
    "runs by schedule",
    "runs by update",
    "runs cancelled",
    "runs of backfills",
    "runs of late data",
    "runs of what was stale",
    "runs submitted again",
];

/// Seeds of each of the tests below, which share the machine's cores.
const SEEDS: u64 = 500;

#[test]
fn the_first_seeds_decide_as_the_model_does() {
    run_seeds(0);
}

#[test]
fn the_second_seeds_decide_as_the_model_does() {
    run_seeds(1);
}

#[test]
fn the_third_seeds_decide_as_the_model_does() {
    run_seeds(2);
}

#[test]
fn the_fourth_seeds_decide_as_the_model_does() {
    run_seeds(3);
}

fn run_seeds(part: u64) {
    if let Some(seed) = number("TIDEMILL_SEED") {
        if part == 0 {
            let counts = run_seed(seed, Trace::Printed);
            println!("seed {seed}: {counts:?}");
            assert!(counts.is_ok(), "seed {seed} failed: {}", counts.unwrap_err());
        }
        return;
    }
    let seeds = number("TIDEMILL_SEEDS").map_or(SEEDS, |all| all.div_ceil(4));
    let (mut sum, mut failures) = (Counts::new(), Vec::new());
    for seed in part * seeds..(part + 1) * seeds {
        // A panic in the machine is a failed seed like any other.
        let result = catch_unwind(AssertUnwindSafe(|| run_seed(seed, Trace::Silent)));
        match result.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
            Ok(counts) => counts.into_iter().for_each(|(what, count)| *sum.entry(what).or_default() += count),
            Err(why) => failures.push(format!(
                "seed {seed} failed: {why}\n  replay with TIDEMILL_SEED={seed} cargo test -p tidemill-core --test intervals"
            )),
        }
    }
    println!("{seeds} seeds: {sum:#?}");
    let first: Vec<&str> = failures.iter().take(10).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {seeds} seeds failed\n{}", failures.len(), first.join("\n"));
    let missing: Vec<&str> = MET.into_iter().filter(|what| !sum.contains_key(what)).collect();
    assert!(seeds < SEEDS || missing.is_empty(), "the simulation no longer provokes {missing:?}");
}

/// Runs one seed to its end.
fn run_seed(seed: u64, trace: Trace) -> Result<Counts, String> {
    let mut world = World::new(seed, trace);
    world.trace(|| format!("seed {seed}: {:?} {:?}", world.weather, world.limits));
    let mut steps = 0_u64;
    while world.now < world.weather.calm_at {
        world.now += world.weather.jump(&mut world.rng);
        if world.rng.chance(world.weather.clock_jumps) {
            world.clock_jumps();
        }
        world.inputs_go_on()?;
        // The first steps set the world up.
        if steps < 6 || world.rng.chance(world.weather.requests) {
            world.somebody_asks()?;
        }
        world.tell(Event::Tick)?;
        world.end_runs()?;
        if world.rng.chance(world.weather.crashes / 2) {
            world.restart()?;
        }
        steps += 1;
        if steps.is_multiple_of(64) {
            world.compare()?;
        }
    }
    world.calm()?;
    Ok(world.counts)
}

#[expect(clippy::disallowed_methods, reason = "the number of seeds is the caller's business")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}
