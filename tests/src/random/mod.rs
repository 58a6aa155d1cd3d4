//! Random queries over random tables: grown from a seed, written as SQL, and shrunk while they still fail.

mod grow;
mod relation;
mod shrink;
mod tables;

pub use grow::grow;
pub use relation::Relation;
pub use shrink::shrink;
use tables::TABLES;
pub use tables::write_tables;
