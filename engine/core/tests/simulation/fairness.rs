//! Slots are shared between runs.

use tidemill_core::graph::{StageGraph, TaskShape};

use crate::cluster::{Cluster, launch, launches, succeeded};
use crate::graphs::{chain, stage};

#[test]
fn a_short_query_beside_a_long_one_waits_for_nobody() {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let long = launches(&cluster.submit("long", chain(&[100])));
    assert_eq!(long.len(), 4);
    let short = launches(&cluster.submit("short", chain(&[2])));
    assert_eq!(short.len(), 2, "it shares slots that the long one holds");
    // The long one gets no more than its slots while they are shared.
    assert_eq!(launches(&cluster.send(succeeded(&short[0]))), []);
    assert_eq!(launches(&cluster.send(succeeded(&short[1]))), []);
    let next = launch(&cluster.send(succeeded(&long[0])));
    assert_eq!(next.run.0, "long");
}

#[test]
fn starved_runs_share_slots_up_to_a_limit() {
    let mut cluster = Cluster::new();
    cluster.start("a", 2);
    let given = |run: &str, cluster: &mut Cluster| launches(&cluster.submit(run, chain(&[100]))).len();
    assert_eq!(given("first", &mut cluster), 2);
    assert_eq!(given("second", &mut cluster), 2, "two tasks per slot");
    assert_eq!([given("third", &mut cluster), given("fourth", &mut cluster)], [1, 1], "one each in any case");
}

#[test]
fn two_long_queries_share_the_slots() {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let first = launches(&cluster.submit("first", chain(&[100])));
    let second = launches(&cluster.submit("second", chain(&[100])));
    assert_eq!((first.len(), second.len()), (4, 4));
    // Tasks end; what is left is shared evenly, and no slot has two tasks any more.
    let mut running: Vec<_> = first.into_iter().chain(second).collect();
    for _ in 0..40 {
        let done = running.remove(0);
        running.extend(launches(&cluster.send(succeeded(&done))));
    }
    let of = |run: &str| running.iter().filter(|l| l.run.0 == run).count();
    assert_eq!((of("first"), of("second")), (2, 2));
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
    assert_eq!(launched, [3, 1], "the second takes what is free");
}
