//! Tasks that take much longer than their siblings.

use tidemill_core::record::TaskState;
use tidemill_core::schedule::{Action, Launch};
use tidemill_core::{Error, ExecutorId};

use crate::cluster::{Cluster, failed, launch, launches, succeeded};
use crate::graphs::chain;

/// Of a stage with four tasks three are done after a second, the one on executor `a` runs on, and is raced on `b`.
fn raced() -> (Cluster, Launch, Launch) {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    cluster.start("b", 3);
    let started = launches(&cluster.submit("run", chain(&[4])));
    let (slow, quick): (Vec<_>, Vec<_>) = started.into_iter().partition(|launch| launch.executor.0 == "a");
    cluster.now += 1_000;
    quick.iter().for_each(|launch| drop(cluster.send(succeeded(launch))));
    let slow = slow[0].clone();
    assert_eq!(cluster.wait(8_999), [], "it has not run for ten seconds");
    let rival = launch(&cluster.wait(1));
    assert_eq!((rival.task, rival.executor.0.as_str()), (slow.task, "b"));
    assert_eq!(cluster.wait(60_000), [], "two are enough");
    (cluster, slow, rival)
}

#[test]
fn the_first_that_succeeds_wins_and_the_other_is_stopped() {
    for second_wins in [false, true] {
        let (mut cluster, slow, rival) = raced();
        let (winner, loser) = if second_wins { (&rival, &slow) } else { (&slow, &rival) };
        let actions = cluster.send(succeeded(winner));
        let stop = Action::Stop { executor: loser.executor.clone(), attempt: loser.attempt };
        assert!(actions.contains(&stop), "{actions:?}");
        assert!(actions.iter().any(|action| matches!(action, Action::Deliver { .. })), "{actions:?}");
        let task = &cluster.run("run").stages[0].tasks[slow.task.index as usize];
        assert_eq!(task.output.as_ref().map(|o| o.attempt), Some(winner.attempt));
        assert_eq!((cluster.run("run").held_slots, cluster.state.idle.len()), (0, 2));
        // What the loser says is too late.
        let before = cluster.state.clone();
        assert_eq!(cluster.send(succeeded(loser)), []);
        assert_eq!(cluster.state, before);
    }
}

#[test]
fn while_one_of_two_is_left_the_task_runs() {
    for second_fails in [false, true] {
        let (mut cluster, slow, rival) = raced();
        let (left, gone) = if second_fails { (&slow, &rival) } else { (&rival, &slow) };
        assert_eq!(cluster.send(failed(gone, Error::unavailable("the store was busy"))), []);
        let task = &cluster.run("run").stages[0].tasks[slow.task.index as usize];
        assert_eq!((task.state, task.attempt, task.failures), (TaskState::Running, Some(left.attempt), 1));
        cluster.kill(&left.executor.0);
        cluster.wait(500);
        let task = &cluster.run("run").stages[0].tasks[slow.task.index as usize];
        assert!(
            matches!(task.state, TaskState::Ready | TaskState::Running),
            "it is given out again, or waits for a slot"
        );
        assert_eq!(task.executor_losses, 1);
    }
}

#[test]
fn a_second_attempt_that_comes_to_nothing_hurts_nobody_and_has_no_successor() {
    for error in [Error::unavailable("the store was busy"), Error::resources_exhausted("it is a small executor")] {
        let (mut cluster, slow, rival) = raced();
        assert_eq!(cluster.send(failed(&rival, error)), []);
        assert_eq!(cluster.wait(600_000), [], "one is enough");
        let task = &cluster.run("run").stages[0].tasks[slow.task.index as usize];
        assert_eq!((task.state, task.attempt), (TaskState::Running, Some(slow.attempt)));
        let actions = cluster.send(succeeded(&slow));
        assert!(actions.iter().any(|action| matches!(action, Action::Deliver { .. })), "{actions:?}");
    }
}

#[test]
fn without_another_executor_and_siblings_that_are_done_nothing_is_raced() {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let started = launches(&cluster.submit("run", chain(&[4])));
    assert_eq!(cluster.wait(60_000), [], "nobody knows how long it should take");
    for launch in &started[..3] {
        cluster.send(succeeded(launch));
    }
    assert_eq!(cluster.wait(600_000), [], "it would race with itself");
    let rival = launches(&cluster.start("b", 1));
    assert_eq!(rival, []);
    assert_eq!(launch(&cluster.wait(1)).executor, ExecutorId("b".to_owned()));
}
