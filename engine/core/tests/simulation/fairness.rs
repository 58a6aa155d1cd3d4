//! Slots are shared between runs.

use tidemill_core::graph::{StageGraph, TaskShape};

use crate::cluster::{Cluster, launch, launches, succeeded};
use crate::graphs::{chain, stage};

#[test]
fn a_short_query_beside_a_long_one_gets_the_next_slot() {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let long = launches(&cluster.submit("long", chain(&[100])));
    assert_eq!(long.len(), 4);
    assert_eq!(launches(&cluster.submit("short", chain(&[1]))), []);
    let next = launch(&cluster.send(succeeded(&long[0])));
    assert_eq!(next.run.0, "short");
}

#[test]
fn two_long_queries_share_the_slots() {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let first = launches(&cluster.submit("first", chain(&[100])));
    cluster.submit("second", chain(&[100]));
    let next: Vec<String> = first.iter().map(|done| launch(&cluster.send(succeeded(done))).run.0).collect();
    assert_eq!(next, ["second", "second", "first", "first"]);
}

#[test]
fn tasks_go_to_the_emptiest_executor() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    cluster.start("b", 3);
    let launched = launches(&cluster.submit("run", chain(&[4])));
    let executors: Vec<&str> = launched.iter().map(|l| l.executor.0.as_str()).collect();
    assert_eq!(executors, ["b", "b", "a", "b"]);
}

#[test]
fn a_whole_stage_holds_as_many_slots_as_it_has_partitions_or_as_are_free() {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let whole = |partitions| StageGraph { stages: vec![stage(0, TaskShape::Whole(partitions))] };
    let launched = [whole(3), whole(3)].map(|graph| {
        let run = format!("run-{}", cluster.state.runs.len());
        launch(&cluster.submit(&run, graph)).slots
    });
    assert_eq!(launched, [3, 1]);
}
