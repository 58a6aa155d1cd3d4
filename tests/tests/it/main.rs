//! Everything that needs a cluster, in one binary: linking DataFusion takes longer than most of these tests.

#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

mod bad_lines;
mod cancel;
mod chaos;
mod command_line;
mod connectors;
mod copy;
mod crash_points;
mod dataframe;
mod datasets;
mod differential;
mod durable;
mod endings;
mod executor_loss;
mod explain;
mod faults;
mod flight_sql;
mod gathers;
mod going;
mod hostile;
mod jobs;
mod kept;
mod late_log;
mod locations;
mod memory;
mod object_store;
mod packs;
mod pinned;
mod pipeline;
mod plans;
mod progress;
mod queries;
mod random_queries;
mod rules;
mod scale;
mod secrets;
mod security;
mod shapes;
mod shell;
mod slt;
mod standby;
mod system_tables;
mod temporary;
mod wrong_use;
