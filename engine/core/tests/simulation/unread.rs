//! Runs whose clients do not read their rows keep no others from theirs.

use tidemill_core::RunId;
use tidemill_core::record::{RunSpec, RunState};
use tidemill_core::schedule::{Action, Event};

use crate::cluster::{Cluster, launches, succeeded};
use crate::graphs::chain;

fn cluster(active_runs: usize, unread_runs: usize) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.settings.active_runs = active_runs;
    cluster.settings.unread_runs = unread_runs;
    cluster
}

/// A client asks for a run; whether it is its turn.
fn is_planned(cluster: &mut Cluster, run: &str, express: bool) -> bool {
    let run = RunId(run.to_owned());
    let spec = RunSpec { statement: String::new(), request: None, express, may_change: false, by: None, job: None };
    let actions = cluster.send(Event::Submitted { run: run.clone(), spec });
    actions.contains(&Action::Plan { run })
}

/// Does all that a run has to do, and answers the runs whose turn it is by that.
fn complete(cluster: &mut Cluster, run: &str, tasks: u32) -> Vec<String> {
    let id = RunId(run.to_owned());
    let mut actions = cluster.send(Event::Planned { run: id.clone(), graph: Ok(chain(&[tasks])), sheet: None });
    let mut planned = Vec::new();
    loop {
        planned.extend(actions.iter().filter_map(|action| match action {
            Action::Plan { run } => Some(run.0.clone()),
            _ => None,
        }));
        let Some(launch) = launches(&actions).pop().filter(|launch| launch.run == id) else { break };
        actions = cluster.send(succeeded(&launch));
    }
    assert!(cluster.run(run).waits_for_client());
    planned
}

#[test]
fn results_that_nobody_reads_leave_others_their_turn() {
    let mut cluster = cluster(2, 3);
    cluster.start("a", 1);
    for run in ["r0", "r1", "r2", "r3", "r4"] {
        assert!(is_planned(&mut cluster, run, false), "{run}");
        assert_eq!(complete(&mut cluster, run, 1), Vec::<String>::new());
    }
    // Three wait for their clients, and two more count as active.
    assert!(!is_planned(&mut cluster, "r5", false));
    assert!(!is_planned(&mut cluster, "r6", false));
    let read = |run: &str| Event::ResultDelivered { run: RunId(run.to_owned()), rows: 1, kept: None, version: None };
    assert!(cluster.send(read("r2")).contains(&Action::Plan { run: RunId("r5".to_owned()) }));
    assert_eq!(complete(&mut cluster, "r5", 1), Vec::<String>::new());
    assert!(cluster.send(read("r0")).contains(&Action::Plan { run: RunId("r6".to_owned()) }));
}

#[test]
fn what_has_work_to_do_counts_and_what_only_waits_to_be_read_does_not() {
    let mut cluster = cluster(1, 1);
    cluster.start("a", 1);
    assert!(is_planned(&mut cluster, "long", false));
    let tasks =
        launches(&cluster.send(Event::Planned { run: RunId("long".to_owned()), graph: Ok(chain(&[2])), sheet: None }));
    assert!(!is_planned(&mut cluster, "next", false), "the long one has work to do");
    let second = launches(&cluster.send(succeeded(&tasks[0])));
    let actions = cluster.send(succeeded(&second[0]));
    assert!(actions.contains(&Action::Plan { run: RunId("next".to_owned()) }));
}

#[test]
fn rows_of_the_coordinators_own_that_nobody_reads_leave_others_their_turn() {
    let mut cluster = cluster(1, 1);
    assert!(is_planned(&mut cluster, "first", true));
    assert!(!is_planned(&mut cluster, "second", true));
    let unread = |run: &str| Event::Unread { run: RunId(run.to_owned()) };
    assert!(cluster.send(unread("first")).contains(&Action::Plan { run: RunId("second".to_owned()) }));
    assert_eq!(cluster.send(unread("first")), [], "it is known");
    assert!(!is_planned(&mut cluster, "third", true), "one may be unread, and one is at work");
    // A new leader makes the rows again.
    let actions = cluster.send(Event::Elected { epoch: tidemill_core::Epoch(2), build: "1".to_owned() });
    assert!(actions.contains(&Action::Plan { run: RunId("first".to_owned()) }));
    assert!(!cluster.run("first").waits_for_client());
    assert_eq!(cluster.run("third").state, RunState::Queued);
}

#[test]
fn no_more_runs_work_at_once_when_the_results_of_many_are_lost() {
    let mut cluster = cluster(2, 100);
    cluster.start("a", 1);
    for run in 0..20 {
        let run = format!("r{run}");
        assert!(is_planned(&mut cluster, &run, false));
        complete(&mut cluster, &run, 1);
    }
    cluster.start("b", 1);
    let mut running = launches(&cluster.kill("a"));
    let mut done = 0;
    while let Some(launch) = running.pop() {
        let working = cluster.state.live.iter().filter(|run| cluster.state.runs[*run].held_slots > 0).count();
        // Two of each of the three queues.
        assert!(working <= 6, "{working} runs work at once");
        running.extend(launches(&cluster.send(succeeded(&launch))));
        done += 1;
    }
    assert_eq!(done, 20, "all are there again");
}
