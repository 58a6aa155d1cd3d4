//! Defaults that follow the machine, and sizes as people write them.

use std::path::PathBuf;
use std::time::Duration;

use tidemill_core::{Error, Result};

/// Bytes per slot where nothing is said.
const MEMORY_PER_SLOT: usize = 1 << 30;

/// How long a thread that waited for a disk stays for the next wait. A listing of many folders wakes a hundred of them for a moment,
/// and each holds memory.
pub(crate) const IDLE_THREAD: Duration = Duration::from_secs(1);

/// One slot per core.
#[must_use]
pub fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// 1 GiB per slot.
#[must_use]
pub const fn default_memory(slots: u32) -> usize {
    MEMORY_PER_SLOT * slots as usize
}

/// A folder of this process below the system's temporary one.
#[must_use]
pub fn default_work_dir() -> PathBuf {
    std::env::temp_dir().join("tidemill")
}

/// The least memory that operators can work with.
const LEAST_MEMORY: usize = 16 << 20;

/// The memory of an executor, with a unit.
///
/// # Errors
/// It is no size, or too little.
pub fn parse_memory(text: &str) -> Result<usize> {
    let bytes = parse_size(text)?;
    match bytes >= LEAST_MEMORY {
        true => Ok(bytes),
        false => Err(Error::invalid(format!("{text} is too little memory: give at least {}MiB", LEAST_MEMORY >> 20))),
    }
}

/// Bytes of a size such as `512MiB`, `4G` or `1000000`. Units are powers of 1,024, with or without `iB`.
///
/// # Errors
/// It is no size.
fn parse_size(text: &str) -> Result<usize> {
    let wrong = || Error::invalid(format!("`{text}` is no size: write 512MiB or 4GiB"));
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if bytes < 1.0 || bytes > (1u64 << 50) as f64 {
        return Err(wrong());
    }
    Ok(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_as_people_write_them() {
        let cases = [("512MiB", Some(512 << 20)), ("4g", Some(4 << 30)), ("1.5 KiB", Some(1536)), ("7", Some(7))];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
        for text in ["", "MiB", "-1G", "1 XB", "0", "1e9"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
