//! The faults that durable runs survive, and the tests that inject them: `cargo run -p tidemill-tests -- faults` runs these
//! tests and writes `docs/faults.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

/// One fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What is done.
    pub inject: &'static str,
    /// What must hold.
    pub holds: &'static str,
    /// The tests that do it, by their names in the test binaries; none where nobody does.
    pub tests: &'static [&'static str],
}

const fn fault(inject: &'static str, holds: &'static str, tests: &'static [&'static str]) -> Fault {
    Fault { inject, holds, tests }
}

const POINTS: &[&str] = &[
    "crash_points::points_of_the_first_third",
    "crash_points::points_of_the_second_third",
    "crash_points::points_of_the_last_third",
];
const SEEDS: &str = "five_thousand_seeds_hold_every_invariant";

/// In the order of their numbers.
pub const FAULTS: [Fault; 34] = [
    fault(
        "executor killed in the middle of a task",
        "same answer; only its running and not durable tasks run again",
        &[
            "executor_loss::a_killed_executor_changes_no_answer",
            "durable::what_is_in_the_store_is_never_done_again_after_an_executor_died",
        ],
    ),
    fault("killed after the output is local, before its pack is durable", "only that is made again", POINTS),
    fault(
        "killed after the pack is durable, a reader in the middle",
        "the reader goes on in the pack",
        &[
            "kept::a_result_goes_on_from_its_packs_after_rows_of_it_were_shown",
            "executor_loss::no_reader_of_a_durable_block_begins_again",
        ],
    ),
    fault(
        "all executors killed; none returns, or all do",
        "an error in time, or the run resumes",
        &[
            "failures::a_run_without_an_executor_says_so_and_fails_at_its_deadline",
            "durable::when_every_process_is_killed_runs_resume_and_effects_happen_once",
        ],
    ),
    fault("coordinator killed before the acceptance is in the log", "the client's retry is the same run", POINTS),
    fault("killed after it is, before the client knows", "the same run", POINTS),
    fault(
        "killed after a completion, before it is in the log",
        "the executor's report is adopted",
        &[
            "crash_points::points_of_the_last_third",
            "crash_points::points_of_the_second_third",
            "five_thousand_seeds_hold_every_invariant",
        ],
    ),
    fault("killed around the intent and the publication", "published once", POINTS),
    fault("killed right after the end is in the log", "a finished run stays finished", POINTS),
    fault(
        "every process killed at once",
        "runs resume; durable tasks are not repeated",
        &[
            "durable::what_is_in_the_store_is_never_done_again_after_everybody_died",
            "durable::what_is_in_s3_is_never_done_again_after_everybody_died",
            "faults::processes::everybody_is_killed_in_the_middle_and_at_the_end_of_each_stage",
            "chaos::kills_at_any_moment_change_no_answer_with_the_state_in_a_folder",
            "chaos::kills_at_any_moment_change_no_answer_with_the_state_on_s3",
            "durable::when_every_process_is_killed_runs_resume_and_effects_happen_once",
        ],
    ),
    fault(
        "leader stopped, followed, continued",
        "it writes and acknowledges nothing, and ends",
        &["standby::of_two_coordinators_one_leads_and_the_other_takes_over"],
    ),
    fault(
        "the same, and the log around it deleted meanwhile",
        "it still finds its seal",
        &["a_leader_that_was_stopped_finds_its_seal_after_the_log_around_it_is_gone"],
    ),
    fault("several coordinators start at once", "one leads", &["one_of_many_claims_an_epoch"]),
    fault(
        "a write lands and its reply is lost",
        "known as one's own",
        &["replies_that_lie_are_found_out", "what_was_appended_is_replayed_once_and_in_order"],
    ),
    fault("409, and nothing landed", "written again", &["replies_that_lie_are_found_out"]),
    fault(
        "the store answers 503, closes, or is silent for a while",
        "nothing fails; what must be noted first waits; uploads catch up, and no finished work is done again",
        &[
            "faults::stores::a_store_that_refuses_for_a_while_stops_nothing",
            "faults::stores::a_store_that_goes_away_in_the_middle_of_uploads_holds_nothing_up_and_they_catch_up",
            "faults::stores::a_store_that_goes_away_in_the_middle_of_reads_costs_no_finished_work",
        ],
    ),
    fault(
        "the store denies; the disk is full",
        "an error that says so within a minute; what is well again in time delays only",
        &[
            "faults::stores::a_store_that_denies_is_an_error_that_says_so_within_a_minute",
            "faults::stores::a_store_that_begins_to_deny_ends_its_coordinator_which_says_so_and_the_run_goes_on_with_the_next",
            "faults::stores::a_store_that_denies_only_data_fails_a_query_of_it_at_once",
            "faults::folders::a_state_folder_that_is_denied_delays_and_in_the_end_is_an_error_that_says_so",
            "faults::folders::a_state_folder_without_room_delays_and_in_the_end_is_an_error_that_says_so",
            "faults::processes::a_full_disk_fails_the_run_and_not_the_executor",
        ],
    ),
    fault(
        "a byte flips on disk, on the network, in the store",
        "noticed; another copy is read or it is made again",
        &[
            "faults::bytes::a_flipped_byte_in_a_spilled_block_is_read_from_its_pack",
            "faults::network::bytes_that_change_on_the_network_are_noticed",
            "faults::bytes::a_flipped_byte_in_a_pack_is_noticed_and_its_tasks_run_again",
        ],
    ),
    fault("somebody deletes a pack", "made again", &["faults::bytes::a_pack_that_somebody_deleted_is_computed_again"]),
    fault(
        "executor and coordinator cannot hear each other; then they can",
        "a blip repeats nothing; later its word is refused, and nothing is published twice",
        &[
            "faults::network::a_network_blip_repeats_no_work",
            "faults::network::an_executor_that_cannot_be_heard_is_given_up_and_its_late_word_refused",
        ],
    ),
    fault(
        "executors cannot reach each other",
        "blocks are read from the store; nobody is given up",
        &["faults::network::readers_that_cannot_reach_a_peer_go_on_in_the_store_and_the_peer_stays"],
    ),
    fault(
        "a straggler",
        "an idle executor tries, too; the first wins, the other is stopped",
        &[
            "faults::processes::a_task_that_stalls_is_done_by_another_executor",
            "stragglers::the_first_that_succeeds_wins_and_the_other_is_stopped",
            SEEDS,
        ],
    ),
    fault(
        "completions doubled, reordered, late",
        "they change nothing",
        &["messages::late_and_doubled_completions_change_nothing", SEEDS],
    ),
    fault(
        "an output of an indeterminate stage is lost",
        "all that may have read it starts again",
        &["failures::a_complete_reader_of_lost_random_rows_starts_again_when_another_reader_needs_them_again", SEEDS],
    ),
    fault(
        "a repeated task gives other rows where they should be the same",
        "noticed by the row checksum, and all that read it starts again; float sums in another order are not taken for it",
        &[
            SEEDS,
            "faults::rows::other_rows_of_a_repeated_task_are_noticed_and_all_that_read_its_stage_starts_again",
            "faults::rows::sums_in_another_order_are_not_taken_for_other_rows",
        ],
    ),
    fault(
        "an input file is replaced, overwritten, deleted",
        "an error that names it",
        &["pinned::a_changed_input_is_named_and_never_mixed", "pinned::a_run_that_is_taken_over_keeps_its_pins"],
    ),
    fault(
        "five successors die while they take over",
        "the sixth goes on",
        &["faults::processes::five_successors_that_die_while_they_take_over_change_nothing"],
    ),
    fault(
        "newest snapshot damaged; a batch damaged",
        "an older one and the log; a refusal that names it",
        &[
            "a_damaged_snapshot_is_passed_over_for_an_older_one",
            "damaged_and_newer_objects_are_refused_by_name",
            "a_log_with_a_gap_is_refused_by_name",
        ],
    ),
    fault(
        "the disk is full where executors spill",
        "the run fails with a typed error, the executor lives",
        &["faults::processes::a_full_disk_fails_the_run_and_not_the_executor"],
    ),
    fault(
        "leaders' clocks differ by hours",
        "nothing waits for a clock",
        &[SEEDS, "faults::processes::leaders_whose_clocks_differ_by_hours_wait_for_nothing"],
    ),
    fault(
        "restarted with another build",
        "a log of another version is refused by name; runs that another build planned begin again",
        &[
            "damaged_and_newer_objects_are_refused_by_name",
            "durable::a_run_that_another_build_planned_begins_again_and_says_so",
        ],
    ),
    fault("a cancellation meets a commit", "one outcome", &[SEEDS]),
    fault(
        "a task panics; a task outlives its executors",
        "the executor lives; the run fails after three",
        &[
            "faults::processes::a_task_that_panics_fails_its_run_and_not_its_executor",
            "failures::a_task_that_outlives_three_executors_fails_its_run",
        ],
    ),
    fault(
        "a result expires while it is read",
        "all of it, or an error",
        &["faults::processes::a_slow_reader_of_a_result_that_expires_gets_all_of_it_or_an_error"],
    ),
];

/// Runs the tests and gives back the page, and whether all passed.
///
/// # Errors
/// They cannot be run.
pub fn run(mut cargo: Command) -> std::io::Result<(String, bool)> {
    let names = FAULTS.iter().flat_map(|fault| fault.tests);
    cargo.args(["test", "--workspace", "--no-fail-fast", "--", "--exact"]).args(names);
    let output = String::from_utf8_lossy(&cargo.output()?.stdout).into_owned();
    let results: BTreeMap<&str, &str> = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .map(|(name, result)| (name, if result == "ok" { "passed" } else { "failed" }))
        .collect();
    Ok(page(&results))
}

fn page(results: &BTreeMap<&str, &str>) -> (String, bool) {
    let mut text = "# Faults\n\nWritten by `cargo run -p tidemill-tests -- faults`, which runs these tests. Each checks that its fault \
                    happened.\n\n| # | fault | must hold | tests | result |\n|---|---|---|---|---|\n"
        .to_owned();
    let mut all = true;
    for (number, fault) in (1..).zip(FAULTS) {
        let of = |name: &&str| results.get(*name).copied().unwrap_or("not found");
        let result = match fault.tests.iter().map(of).find(|result| *result != "passed") {
            _ if fault.tests.is_empty() => "no test",
            Some(other) => other,
            None => "passed",
        };
        all &= fault.tests.is_empty() || result == "passed";
        let tests: Vec<String> = fault.tests.iter().map(|name| format!("`{name}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {number} | {} | {} | {} | {result} |", fault.inject, fault.holds, tests.join(", "));
    }
    (text, all)
}
