//! Freed memory goes back to the system.
//!
//! The system's allocator keeps what was freed, per thread, for the next allocation of that thread. Each attempt has a
//! thread of its own, so an executor would hold the peaks of several runs at once and exceed what `--memory` allows.

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
