//! Random queries over random tables: grown from a seed, written as SQL, and shrunk while they still fail.

mod grow;
mod mutate;
mod relation;
mod shrink;
mod tables;

pub use grow::grow;
pub use mutate::{mutate, mutate_text};
pub use relation::Relation;
pub use shrink::shrink;
use tables::TABLES;
pub use tables::write_tables;
