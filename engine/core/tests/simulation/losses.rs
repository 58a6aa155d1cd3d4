//! Whether there is a reason for everything that is lost.

use tidemill_core::record::{ExecutorState, Loss};
use tidemill_core::schedule::Event;
use tidemill_core::{Attempt, ExecutorId, RunId, TaskId};

use crate::invariants::{ensure, follows_lost_rows};
use crate::ledger::Ledger;
use crate::world::Check;

impl Ledger {
    pub(crate) fn check_lost_attempt(
        &mut self,
        event: &Event,
        run: &RunId,
        task: TaskId,
        attempt: Attempt,
        cause: Loss,
    ) -> Check {
        let executor = self.replayed.task(run, task).and_then(|t| t.runner(attempt).cloned()).unwrap();
        let (explained, count) = match cause {
            Loss::Executor => (self.is_lost(&executor), &mut self.counts.lost_with_executor),
            Loss::Input => (
                matches!(event, Event::TaskFailed { attempt: a, lost, .. } if *a == attempt && !lost.outputs.is_empty()),
                &mut self.counts.lost_with_input,
            ),
            Loss::Message => (
                match event {
                    Event::ExecutorConnected { executor: e, running, holding, .. } => {
                        *e == executor && running.iter().chain(holding).all(|r| r.attempt != attempt)
                    }
                    Event::AttemptsForgotten { executor: e, attempts } => *e == executor && attempts.contains(&attempt),
                    _ => false,
                },
                &mut self.counts.lost_with_message,
            ),
            Loss::Differs => (
                matches!(event, Event::TaskSucceeded { run: r, task: t, footer, .. } if (r, *t) == (run, task)
                    && footer.checksum != self.replayed.task(run, task).and_then(|t| t.checksum)),
                &mut self.counts.differing,
            ),
            Loss::Rollback => {
                (follows_lost_rows(&self.replayed.runs[run], task.stage), &mut self.counts.rolled_back_attempts)
            }
        };
        *count += 1;
        ensure!(explained, "nothing explains why the attempt is lost");
        Ok(())
    }

    pub(crate) fn check_lost_output(&mut self, event: &Event, run: &RunId, task: TaskId) -> Check {
        let output = self.replayed.task(run, task).and_then(|t| t.output.as_ref());
        let Some(output) = output else { return Err("there was no output".to_owned()) };
        let missed = match event {
            Event::TaskFailed { lost, .. } | Event::ResultLost { lost, .. } => {
                let looked = lost.looked_in_packs || output.durable.is_none();
                looked && lost.outputs.iter().any(|l| l.task == task && l.attempt == output.attempt)
            }
            _ => false,
        };
        if missed || (output.durable.is_none() && self.is_lost(&output.executor)) {
            self.counts.lost_outputs += 1;
            return Ok(());
        }
        self.counts.rolled_back_outputs += 1;
        ensure!(follows_lost_rows(&self.replayed.runs[run], task.stage), "nothing explains why the output is lost");
        Ok(())
    }

    fn is_lost(&self, executor: &ExecutorId) -> bool {
        self.replayed.executors.get(executor).is_none_or(|e| e.state == ExecutorState::Lost)
    }
}
