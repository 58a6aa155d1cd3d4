//! What should happen: how a plan becomes stages, how plans and data travel, and the wire formats of both.
//!
//! Layers, lower first: `wire` < `codec` < `exchange` < `plan`. `codec` knows the exchange's plan nodes by a table that
//! `exchange` fills.

pub mod blob;
pub mod codec;
pub mod connector;
pub mod control;
pub mod coordinators;
pub mod crash;
pub mod dataset;
pub mod durable_files;
pub mod error;
pub mod exchange;
pub mod expect;
pub mod files;
pub mod functions;
pub mod peers;
pub mod pinned;
pub mod plan;
pub mod planner;
pub mod runtime;
pub mod secrets;
pub mod sessions;
mod stores;
pub mod tickets;
pub mod tls;
pub mod wire;
