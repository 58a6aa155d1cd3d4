//! A line or two on standard error that tell how a run goes, once it takes longer than a moment.
//!
//! ```text
//! ⠹ [=========>----------] 12 of 40 tasks · 3 of 7 stages · 8 running · 20 waiting · 12.3 s
//!   1,204,112 rows/s · 310.0 MiB/s · 4.1 GiB exchanged · 0 B spilled · 1 recovery
//! ```

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use console::{Term, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidemill_core::schedule::Progress;
use tidemill_core::{Result, RunId};
use tokio::task::JoinHandle;

use crate::client::Observer;
use crate::output::{count, size};

/// Runs that end sooner show nothing.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Rates are of so long: executors tell what their tasks have done about once a second.
const WINDOW: Duration = Duration::from_secs(3);
/// Between two pictures of what turns meanwhile.
const TURN: Duration = Duration::from_millis(120);

const TEMPLATE: &str = "{spinner:.cyan} [{bar:20.cyan/dim}] {msg}\n  {prefix:.dim}";

/// Watches a run until it is dropped; then nothing of it is left on the terminal.
pub(super) struct Watch {
    bar: ProgressBar,
    watching: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch; `None` where nobody would see it.
    pub(super) fn begin(observer: Observer, run: RunId) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=>-"));
        }
        let watching = tokio::spawn(watch(bar.clone(), observer, run));
        Some(Self { bar, watching })
    }

    /// Takes it off the terminal, for good.
    pub(super) fn end(&self) {
        self.watching.abort();
        self.bar.finish_and_clear();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

async fn watch(bar: ProgressBar, observer: Observer, run: RunId) {
    tokio::time::sleep(A_MOMENT).await;
    let mut before: VecDeque<(Instant, Progress)> = VecDeque::new();
    loop {
        let looked = observer.progress(&run).await;
        if bar.is_finished() {
            return;
        }
        let seen = Instant::now();
        show(&bar, &looked, before.front().map(|(at, progress)| (seen - *at, progress)));
        if let Ok(Some(progress)) = looked {
            before.push_back((seen, progress));
        }
        while before.len() > 1 && before.front().is_some_and(|(at, _)| at.elapsed() > WINDOW) {
            before.pop_front();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(bar: &ProgressBar, looked: &Result<Option<Progress>>, before: Option<(Duration, &Progress)>) {
    let [message, details] = match looked {
        Ok(Some(now)) => {
            bar.set_length(now.tasks.max(1));
            bar.set_position(now.tasks_done);
            [tasks(now), flow(now, before)]
        }
        Ok(None) => return,
        Err(error) => [error.message.clone(), "waiting for it: the run goes on, or is taken up again".to_owned()],
    };
    let room = usize::from(Term::stderr().size().1).saturating_sub(2);
    bar.set_message(truncate_str(&message, room.saturating_sub(25), "…").into_owned());
    bar.set_prefix(truncate_str(&details, room, "…").into_owned());
    if bar.is_hidden() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TURN);
    }
}

/// How much of it is done.
fn tasks(now: &Progress) -> String {
    let waiting = now.tasks.saturating_sub(now.tasks_done + now.tasks_running);
    let seconds = now.elapsed_ms as f64 / 1e3;
    if now.tasks == 0 {
        return format!("{seconds:.1} s");
    }
    format!(
        "{} of {} tasks · {} of {} stages · {} running · {waiting} waiting · {seconds:.1} s",
        now.tasks_done, now.tasks, now.stages_done, now.stages, now.tasks_running
    )
}

/// What flows through it, and what keeps it from flowing.
fn flow(now: &Progress, before: Option<(Duration, &Progress)>) -> String {
    let mut parts = Vec::new();
    if let Some((took, before)) = before {
        let rate = |of: fn(&Progress) -> u64| of(now).saturating_sub(of(before)) as f64 / took.as_secs_f64().max(1e-3);
        parts.push(format!("{} rows/s", count(rate(|p| p.rows) as u64)));
        parts.push(format!("{}/s", size(rate(|p| p.exchanged_bytes) as u64)));
    }
    parts.push(format!("{} exchanged", size(now.exchanged_bytes)));
    parts.push(format!("{} spilled", size(now.spilled_bytes)));
    let plural = if now.recoveries == 1 { "y" } else { "ies" };
    parts.extend((now.recoveries > 0).then(|| format!("{} recover{plural}", now.recoveries)));
    parts.extend(now.waits_for.as_ref().map(|what| format!("waits for {what}")));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            elapsed_ms: 12_300,
            stages: 7,
            stages_done: 3,
            tasks: 40,
            tasks_done: 12,
            tasks_running: 8,
            rows: 3_000_000,
            exchanged_bytes: 4 << 30,
            spilled_bytes: 0,
            recoveries: 0,
            waits_for: None,
        }
    }

    #[test]
    fn numbers_are_differences_by_time() {
        let before = Progress { rows: 1_000_000, exchanged_bytes: 3 << 30, ..progress() };
        assert_eq!(tasks(&progress()), "12 of 40 tasks · 3 of 7 stages · 8 running · 20 waiting · 12.3 s");
        let flows = flow(&progress(), Some((Duration::from_secs(2), &before)));
        assert_eq!(flows, "1,000,000 rows/s · 512.0 MiB/s · 4.0 GiB exchanged · 0 B spilled");
    }

    #[test]
    fn what_keeps_a_run_is_said() {
        let waits_for = Some("an executor: none is connected".to_owned());
        let now = Progress { recoveries: 1, waits_for, ..progress() };
        let flows = flow(&now, None);
        assert_eq!(flows, "4.0 GiB exchanged · 0 B spilled · 1 recovery · waits for an executor: none is connected");
    }
}
