//! A large cluster: what an event costs must not grow with executors or tasks.

use std::collections::VecDeque;

use tidemill_core::graph::StageGraph;
use tidemill_core::schedule::{Event, Launch};

use crate::cluster::{Cluster, launches, succeeded};
use crate::graphs::chain;

const EXECUTORS: usize = 1_000;
const SLOTS: u32 = 8;
const TASKS: u32 = 100_000;
/// Ample, for slow machines; it takes about a second.
const LIMIT_SECONDS: u64 = 20;

#[test]
fn a_thousand_executors_run_a_hundred_thousand_tasks_in_seconds() {
    measure("1 run", vec![chain(&[TASKS / 2, TASKS / 2])], 0);
}

#[test]
fn a_thousand_executors_run_many_runs_in_seconds() {
    measure("16 runs", vec![chain(&[TASKS / 32, TASKS / 32]); 16], 0);
}

#[test]
fn a_hundred_of_a_thousand_executors_die_and_it_still_takes_seconds() {
    measure("1 run, 100 deaths", vec![chain(&[TASKS / 2, TASKS / 2])], 100);
}

#[expect(clippy::disallowed_types, reason = "this test measures real time")]
fn measure(what: &str, graphs: Vec<StageGraph>, deaths: usize) {
    let began = std::time::Instant::now();
    let events = finish_all(graphs, deaths);
    let took = began.elapsed();
    println!("{what}: {events} events in {took:?}, {:?} each", took / events);
    assert!(took.as_secs() < LIMIT_SECONDS, "{what} took {took:?}");
}

/// Runs everything to its end, oldest attempts first, and counts the events.
fn finish_all(graphs: Vec<StageGraph>, deaths: usize) -> u32 {
    let mut cluster = Cluster::new();
    for executor in 0..EXECUTORS {
        cluster.start(&format!("executor-{executor:04}"), SLOTS);
    }
    let runs = graphs.len();
    let mut running: VecDeque<Launch> = VecDeque::new();
    for (run, graph) in graphs.into_iter().enumerate() {
        running.extend(launches(&cluster.submit(&format!("run-{run:02}"), graph)));
    }
    let mut events = 0;
    let mut dead = 0;
    while let Some(done) = running.pop_front() {
        cluster.now += 1;
        running.extend(launches(&cluster.send(succeeded(&done))));
        events += 1;
        if dead < deaths && events % 500 == 0 {
            running.extend(launches(&cluster.kill(&format!("executor-{dead:04}"))));
            dead += 1;
        }
    }
    assert_eq!(dead, deaths);
    let ids: Vec<_> = cluster.state.live.iter().cloned().collect();
    assert_eq!(ids.len(), runs);
    for run in ids {
        assert!(cluster.state.runs[&run].stages.last().unwrap().is_complete());
        cluster.send(Event::ResultDelivered { run, rows: 1, kept: None, version: None });
    }
    assert!(cluster.state.live.is_empty());
    events
}
