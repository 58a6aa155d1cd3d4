//! Named points around everything that must outlive a process. Tests let a process die there, as if its power went:
//! `TIDEMILL_CRASH_AT=log.finish:before:2` kills it before it finishes a run for the second time; `output.insert:panic:1`
//! lets a task panic, `output.insert:stall:1` lets it take a minute longer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The variable that names a point, a side of it, and how often it is passed first.
pub const VARIABLE: &str = "TIDEMILL_CRASH_AT";

pub use tidemill_core::{DATASET_POINTS, POINTS};

/// How long a stalled task does nothing.
const STALL: Duration = Duration::from_secs(60);

/// Where this process is to die.
struct Armed {
    point: String,
    side: String,
    passes: AtomicU64,
}

/// Nothing of this point's work was done.
pub fn before(point: &str) {
    reached(point, "before");
}

/// All of it was done, and nobody was told.
pub fn after(point: &str) {
    reached(point, "after");
}

fn reached(point: &str, side: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let mut parts = value.split(':').map(str::to_owned);
        let (point, side) = (parts.next()?, parts.next()?);
        let passes = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        Some(Armed { point, side, passes: AtomicU64::new(passes) })
    });
    let Some(armed) = armed.as_ref().filter(|armed| armed.point == point) else { return };
    let kind = if side == "before" { armed.side.as_str() } else { "" };
    let lives_on = matches!(kind, "panic" | "stall");
    if (lives_on || armed.side == side) && armed.passes.fetch_sub(1, Ordering::AcqRel) == 1 {
        match kind {
            "panic" => panic_once(point),
            "stall" => std::thread::sleep(STALL),
            _ => die(),
        }
    }
}

/// The end of a task that goes wrong in a way that nobody foresaw.
#[expect(clippy::panic, reason = "that is what is asked for")]
fn panic_once(point: &str) {
    panic!("a test asked for it at {point}");
}

#[expect(unsafe_code, reason = "a call of the C library without arguments that could be wrong")]
fn die() {
    // SAFETY: the process ends here; nothing of it is used again.
    unsafe {
        libc::raise(libc::SIGKILL);
    }
}
