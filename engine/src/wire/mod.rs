//! Generated protobuf, and its conversions to and from domain types.
//!
//! Invariant: nothing above `codec` and the services sees these types.

mod convert;
#[expect(
    clippy::allow_attributes,
    clippy::large_enum_variant,
    missing_docs,
    unused_qualifications,
    reason = "generated code"
)]
mod generated {
    tonic::include_proto!("tidemill.v1");
}

pub use convert::{missing, status_of, statuses};
pub use generated::*;

/// Names the build in handshakes: processes of different builds refuse each other, because plans of one may not decode
/// in the other.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+datafusion-", "55.2");

/// Bounds one gRPC message: a frame is one batch, and one row may be large.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Metadata key under which a coordinator names the run of a result stream.
pub const RUN_ID_HEADER: &str = "tidemill-run-id";

/// Metadata key under which a coordinator that stands by names the address of the one that leads.
pub const LEADER_HEADER: &str = "tidemill-leader";

/// The Flight action that tells how far a run has come: its name in, a [`RunProgress`] out, or nothing where it is not known.
pub const PROGRESS_ACTION: &str = "tidemill.progress";

/// The Flight action that tells that a session goes on: its secret name in, nothing out.
pub const SESSION_HEARD_ACTION: &str = "tidemill.session.heard";
/// The Flight action that tells that a session has ended: its secret name in, nothing out.
pub const SESSION_ENDED_ACTION: &str = "tidemill.session.ended";

/// The CRC32C over the messages of a result so far, with one more.
#[must_use]
pub fn message_crc(crc: u32, message: &arrow_flight::FlightData) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &message.data_header), &message.data_body)
}
