//! Freed memory goes back to the system.
//!
//! The system's allocator keeps what was freed, per thread, for the next allocation of that thread. Each attempt has a
//! thread of its own, so an executor would hold the peaks of several attempts at once and exceed what `--memory` allows.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

/// How often an executor looks at how much it holds.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Of a processor's time, giving back takes one part in so many, at the most.
const SHARE: u32 = 20;

/// Gives memory back whenever the process holds more than `limit` bytes, of which some may be freed.
pub(crate) async fn keep_below(limit: usize) -> Infallible {
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK_EVERY;
        if held().is_some_and(|held| held > limit) {
            let began = Instant::now();
            // It cannot panic, and if it did, nothing would be lost but memory.
            drop(tokio::task::spawn_blocking(trim).await);
            pause = LOOK_EVERY.max(began.elapsed() * SHARE);
        }
    }
}

/// Bytes of memory that the process holds, without files that are mapped; none where the system does not say.
fn held() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

/// Gives back what nothing uses any more. Takes milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a call of the C library without arguments that could be wrong")]
pub(crate) fn trim() {
    // SAFETY: it may be called at any time, from any thread; it only releases pages that are free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Elsewhere the allocator decides.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    #[expect(clippy::expect_used, reason = "a test")]
    fn what_is_held_is_seen() {
        let before = held().expect("Linux says it");
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = held().expect("Linux says it");
        assert!(after >= before + (60 << 20), "{before} and {after} with {} more", block.len());
    }
}
