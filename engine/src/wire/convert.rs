//! Domain types to protobuf and back. Absent fields are errors, never defaults.

use prost::Message;
use tidemill_core::record::{Footer, OperatorMetrics, Pack, RowCounts, RowsDiffer, RowsRead, TaskMetrics};
use tidemill_core::schedule::{Flow, Lost, LostOutput, Progress};
use tidemill_core::{Attempt, Epoch, Error, ErrorKind, Place, Result, StageId, TaskId};
use tonic::{Code, Status};

use super::generated as pb;

/// The error for an absent field.
#[must_use]
pub fn missing(field: &str) -> Error {
    Error::internal(format!("a message lacks `{field}`: do both processes run the same build?"))
}

impl From<Attempt> for pb::Attempt {
    fn from(a: Attempt) -> Self {
        Self { epoch: a.epoch.0, counter: a.counter }
    }
}

impl From<pb::Attempt> for Attempt {
    fn from(a: pb::Attempt) -> Self {
        Self { epoch: Epoch(a.epoch), counter: a.counter }
    }
}

impl From<TaskId> for pb::TaskId {
    fn from(t: TaskId) -> Self {
        Self { stage: t.stage.0, index: t.index }
    }
}

impl From<pb::TaskId> for TaskId {
    fn from(t: pb::TaskId) -> Self {
        Self { stage: StageId(t.stage), index: t.index }
    }
}

impl From<Footer> for pb::Footer {
    fn from(f: Footer) -> Self {
        Self { crc: f.crc, rows: f.rows, bytes: f.bytes, checksum: f.checksum }
    }
}

impl From<pb::Footer> for Footer {
    fn from(f: pb::Footer) -> Self {
        Self { crc: f.crc, rows: f.rows, bytes: f.bytes, checksum: f.checksum }
    }
}

impl From<&Pack> for pb::Pack {
    fn from(p: &Pack) -> Self {
        Self { name: p.name.clone(), crc: p.crc, bytes: p.bytes, puts: p.puts }
    }
}

impl From<&pb::Pack> for Pack {
    fn from(p: &pb::Pack) -> Self {
        Self { name: p.name.clone(), crc: p.crc, bytes: p.bytes, puts: p.puts }
    }
}

impl From<TaskMetrics> for pb::TaskMetrics {
    fn from(m: TaskMetrics) -> Self {
        Self {
            rows_in: m.rows_in,
            rows_scanned: m.rows_scanned,
            rows_out: m.rows_out,
            bytes_out: m.bytes_out,
            remote_bytes: m.remote_bytes,
            spilled_bytes: m.spilled_bytes,
            scan_ns: m.scan_ns,
            operator_ns: m.operator_ns,
            encode_ns: m.encode_ns,
            exchange_ns: m.exchange_ns,
            wait_ns: m.wait_ns,
            get_requests: m.get_requests,
            list_requests: m.list_requests,
            left_out_bytes: m.left_out_bytes,
            make_ns: m.make_ns,
            store_ns: m.store_ns,
            encoded_bytes: m.encoded_bytes,
        }
    }
}

impl From<pb::TaskMetrics> for TaskMetrics {
    fn from(m: pb::TaskMetrics) -> Self {
        Self {
            rows_in: m.rows_in,
            rows_scanned: m.rows_scanned,
            rows_out: m.rows_out,
            bytes_out: m.bytes_out,
            remote_bytes: m.remote_bytes,
            spilled_bytes: m.spilled_bytes,
            scan_ns: m.scan_ns,
            operator_ns: m.operator_ns,
            encode_ns: m.encode_ns,
            exchange_ns: m.exchange_ns,
            wait_ns: m.wait_ns,
            get_requests: m.get_requests,
            list_requests: m.list_requests,
            left_out_bytes: m.left_out_bytes,
            make_ns: m.make_ns,
            store_ns: m.store_ns,
            encoded_bytes: m.encoded_bytes,
        }
    }
}

impl From<OperatorMetrics> for pb::OperatorMetrics {
    fn from(m: OperatorMetrics) -> Self {
        let OperatorMetrics { path, name, rows, compute_ns, spilled_bytes } = m;
        Self { path, name, rows, compute_ns, spilled_bytes }
    }
}

impl From<pb::OperatorMetrics> for OperatorMetrics {
    fn from(m: pb::OperatorMetrics) -> Self {
        let pb::OperatorMetrics { path, name, rows, compute_ns, spilled_bytes } = m;
        Self { path, name, rows, compute_ns, spilled_bytes }
    }
}

impl From<RowCounts> for pb::RowCounts {
    fn from(counts: RowCounts) -> Self {
        let RowCounts { filtered, aggregated, groups, joined, reads, differs } = counts;
        let read = |RowsRead { from, rows, whole }| pb::RowsRead { stage: from.0, rows, whole };
        let differs = differs.map(|RowsDiffer { operator, given, taken }| pb::RowsDiffer { operator, given, taken });
        Self { filtered, aggregated, groups, joined, reads: reads.into_iter().map(read).collect(), differs }
    }
}

impl From<pb::RowCounts> for RowCounts {
    fn from(counts: pb::RowCounts) -> Self {
        let pb::RowCounts { filtered, aggregated, groups, joined, reads, differs } = counts;
        let read = |pb::RowsRead { stage, rows, whole }| RowsRead { from: StageId(stage), rows, whole };
        let differs = differs.map(|pb::RowsDiffer { operator, given, taken }| RowsDiffer { operator, given, taken });
        Self { filtered, aggregated, groups, joined, reads: reads.into_iter().map(read).collect(), differs }
    }
}

impl From<ErrorKind> for pb::ErrorKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::LostInput => Self::LostInput,
            ErrorKind::ResourcesExhausted => Self::ResourcesExhausted,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

impl From<pb::ErrorKind> for ErrorKind {
    fn from(kind: pb::ErrorKind) -> Self {
        match kind {
            pb::ErrorKind::Invalid => Self::Invalid,
            pb::ErrorKind::NotFound => Self::NotFound,
            pb::ErrorKind::Conflict => Self::Conflict,
            pb::ErrorKind::Unavailable => Self::Unavailable,
            pb::ErrorKind::LostInput => Self::LostInput,
            pb::ErrorKind::ResourcesExhausted => Self::ResourcesExhausted,
            pb::ErrorKind::Denied => Self::Denied,
            pb::ErrorKind::Cancelled => Self::Cancelled,
            pb::ErrorKind::Internal | pb::ErrorKind::Unspecified => Self::Internal,
        }
    }
}

impl From<&Error> for pb::Error {
    fn from(error: &Error) -> Self {
        let place = error.place.map(|place| pb::Place { line: place.line, column: place.column });
        Self { kind: pb::ErrorKind::from(error.kind).into(), message: error.message.clone(), lost: None, place }
    }
}

impl From<&pb::Error> for Error {
    fn from(error: &pb::Error) -> Self {
        let place = error.place.map(|place| Place { line: place.line, column: place.column });
        Self { kind: error.kind().into(), message: error.message.clone(), place }
    }
}

impl From<Progress> for pb::RunProgress {
    fn from(p: Progress) -> Self {
        Self {
            elapsed_ms: p.elapsed_ms,
            stages: p.stages,
            stages_done: p.stages_done,
            tasks: p.tasks,
            tasks_done: p.tasks_done,
            tasks_running: p.tasks_running,
            rows: p.rows,
            exchanged_bytes: p.exchanged_bytes,
            spilled_bytes: p.spilled_bytes,
            recoveries: p.recoveries,
            waits_for: p.waits_for,
        }
    }
}

impl From<pb::RunProgress> for Progress {
    fn from(p: pb::RunProgress) -> Self {
        Self {
            elapsed_ms: p.elapsed_ms,
            stages: p.stages,
            stages_done: p.stages_done,
            tasks: p.tasks,
            tasks_done: p.tasks_done,
            tasks_running: p.tasks_running,
            rows: p.rows,
            exchanged_bytes: p.exchanged_bytes,
            spilled_bytes: p.spilled_bytes,
            recoveries: p.recoveries,
            waits_for: p.waits_for,
        }
    }
}

impl pb::Flow {
    /// What an attempt has done so far.
    #[must_use]
    pub fn of(attempt: Attempt, flow: Flow) -> Self {
        let Flow { rows, exchanged_bytes, spilled_bytes } = flow;
        Self { attempt: Some(attempt.into()), rows, exchanged_bytes, spilled_bytes }
    }

    /// The inverse; `None` if it names no attempt.
    #[must_use]
    pub fn of_attempt(&self) -> Option<(Attempt, Flow)> {
        let Self { attempt, rows, exchanged_bytes, spilled_bytes } = *self;
        Some((attempt?.into(), Flow { rows, exchanged_bytes, spilled_bytes }))
    }
}

impl From<LostOutput> for pb::LostOutput {
    fn from(lost: LostOutput) -> Self {
        Self { task: Some(lost.task.into()), attempt: Some(lost.attempt.into()) }
    }
}

impl TryFrom<&pb::LostOutput> for LostOutput {
    type Error = Error;

    fn try_from(lost: &pb::LostOutput) -> Result<Self> {
        let task = lost.task.ok_or_else(|| missing("LostOutput.task"))?.into();
        let attempt = lost.attempt.ok_or_else(|| missing("LostOutput.attempt"))?.into();
        Ok(Self { task, attempt })
    }
}

impl From<&Lost> for pb::Lost {
    fn from(lost: &Lost) -> Self {
        let outputs = lost.outputs.iter().copied().map(Into::into).collect();
        Self { outputs, looked_in_packs: lost.looked_in_packs }
    }
}

impl TryFrom<&pb::Lost> for Lost {
    type Error = Error;

    fn try_from(lost: &pb::Lost) -> Result<Self> {
        let outputs = lost.outputs.iter().map(LostOutput::try_from).collect::<Result<_>>()?;
        Ok(Self { outputs, looked_in_packs: lost.looked_in_packs })
    }
}

/// The gRPC status of an error, with the error itself as its details.
#[must_use]
pub fn status_of(error: &Error) -> Status {
    let code = match error.kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::LostInput => Code::DataLoss,
        ErrorKind::ResourcesExhausted => Code::ResourceExhausted,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
    };
    Status::with_details(code, error.message.clone(), pb::Error::from(error).encode_to_vec().into())
}

/// The error a gRPC status carries; one without details came from the transport, not from Tidemill.
#[must_use]
pub fn statuses(status: &Status) -> Error {
    if let Some(error) = pb::Error::decode(status.details()).ok().filter(|e| !e.message.is_empty()) {
        return Error::from(&error);
    }
    let message = status.message();
    match status.code() {
        Code::Cancelled => Error::cancelled(format!("the call was cancelled: {message}")),
        Code::InvalidArgument => Error::invalid(message),
        Code::NotFound => Error::not_found(message),
        Code::PermissionDenied | Code::Unauthenticated => Error::denied(message),
        Code::ResourceExhausted => Error::resources_exhausted(message),
        Code::Unimplemented => {
            Error::invalid(format!("the peer does not serve this call ({message}): is it Tidemill?"))
        }
        _ => Error::unavailable(format!("the connection failed: {message}")),
    }
}
