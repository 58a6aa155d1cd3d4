//! jemalloc, in programs of ours: what tasks have freed goes back to the system, whichever thread they ran on.
//!
//! The system's allocator keeps it, for each of many threads, see `docs/adr/0012-jemalloc.md`. Who embeds Tidemill chooses an
//! allocator for their own program.

use std::ffi::c_char;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Where jemalloc finds its settings.
#[repr(transparent)]
pub(crate) struct Settings(*const c_char);

// SAFETY: it points at a constant.
unsafe impl Sync for Settings {}

/// Freed pages go back within half a second, by threads of jemalloc's own. Many of our threads wait for disks, and each would
/// keep freed memory for its next use: they keep pieces of up to 4 KiB.
// SAFETY: jemalloc reads a C string under this name, once, and nothing else has the name.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub(crate) static SETTINGS: Settings =
    Settings(c"background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0,lg_tcache_max:12".as_ptr());
