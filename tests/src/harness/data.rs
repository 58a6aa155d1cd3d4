//! Data that tests share, generated once per machine state.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;

use tidemill::generate::{Progress, TpchOptions, tpch as generate};

/// The scale factor of differential tests: 60,000 lineitems.
pub const SMALL_SCALE: f64 = 0.01;

/// The folder with TPC-H at [`SMALL_SCALE`], below the build's own temporary folder.
///
/// # Panics
/// It cannot be generated.
pub fn tpch() -> PathBuf {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| tpch_of(SMALL_SCALE)).clone()
}

/// The folder with TPC-H at some scale: large ones in the user's cache folder, where benchmarks find them too.
///
/// # Panics
/// It cannot be generated.
pub fn tpch_of(scale: f64) -> PathBuf {
    let cache = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/tidemill"));
    let (parent, name) = match cache.filter(|_| scale >= 1.0) {
        Some(cache) => (cache, format!("tpch-sf{scale}")),
        None => (target_dir().join("test-data"), format!("tpch-{scale}")),
    };
    std::fs::create_dir_all(&parent).expect("the data folder can be made");
    // Tests, and test processes, may start side by side.
    let lock = File::create(parent.join("lock")).expect("the lock can be made");
    lock.lock().expect("the lock can be taken");
    let to = parent.join(name);
    let options = TpchOptions { scale, to: to.clone(), progress: Progress::Hidden };
    generate(&options).expect("TPC-H data can be generated");
    to
}

/// Where cargo puts what it builds: the running test lies in `TARGET/PROFILE/deps`.
pub(super) fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its binary");
    test.ancestors().nth(3).expect("a test lies in a target folder").to_owned()
}
