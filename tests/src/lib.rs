//! Real-process tests of Tidemill: a harness for clusters, data, and the oracle.
//!
//! Tests live in `tests/it`, one file per subject; `tests/tidy.rs` checks the house's own rules.

#![expect(clippy::expect_used, clippy::panic, reason = "a harness fails its test where something is not as it must be")]

pub mod faults;
pub mod harness;
pub mod mutants;
pub mod random;
