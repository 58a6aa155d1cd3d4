//! Bytes that are almost right: what a broken or hostile peer may send.

use fastrand::Rng;

/// Changes at the most, to one input.
const CHANGES: usize = 4;

/// The bytes with a few changes.
#[must_use]
pub fn mutate(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..=CHANGES) {
        let at = rng.usize(0..=bytes.len());
        let until = rng.usize(at..=bytes.len().min(at + 16));
        match rng.u8(0..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => {
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
            3 => bytes.insert(at, rng.u8(..)),
            // The largest numbers, in any encoding.
            4 => bytes[at..until].fill(0xff),
            5 => bytes[at..until].iter_mut().for_each(|byte| *byte = rng.u8(..)),
            _ => bytes[at..until].iter_mut().take(1).for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
        }
    }
    bytes
}

/// The text with a few changes, still text.
#[must_use]
pub fn mutate_text(rng: &mut Rng, text: &str) -> String {
    String::from_utf8_lossy(&mutate(rng, text.as_bytes())).into_owned()
}
