//! Freed memory goes back to the system, in programs with the allocator of GNU's C library. Ours have jemalloc, which does so itself.
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

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
#[expect(clippy::expect_used, reason = "a test")]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn freed_memory_is_given_back_above_the_limit_and_not_below() {
        let now = || held().expect("Linux says it");
        let before = now();
        let mut pieces: Vec<_> = (0..16_384).map(|_| vec![1_u8; 16 << 10]).collect();
        assert!(now() >= before + 240 * MIB, "{} pieces are held", pieces.len());
        // Behind the others, it keeps the allocator from giving them back by itself.
        let last = pieces.pop();
        drop(pieces);
        assert!(now() >= before + 192 * MIB, "the allocator gave it back by itself: this test shows nothing");
        let second = Duration::from_secs(1);
        tokio::time::timeout(second, keep_below(before + 1024 * MIB)).await.expect_err("it goes on for ever");
        assert!(now() >= before + 192 * MIB, "it was below the limit");
        tokio::time::timeout(second, keep_below(before)).await.expect_err("it goes on for ever");
        assert!(now() < before + 64 * MIB, "freed memory is held");
        drop(last);
    }
}
