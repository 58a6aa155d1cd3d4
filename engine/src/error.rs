//! DataFusion's errors as Tidemill's. Kinds are found by walking sources, never by reading text.

use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::Span;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use tidemill_core::schedule::Lost;
use tidemill_core::{Error, ErrorKind, Place};

/// A typed error on its way through DataFusion's operators.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct TaskError {
    /// What happened.
    pub error: Error,
    /// Inputs that could not be read, for [`ErrorKind::LostInput`].
    pub lost: Lost,
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        Self { error, lost: Lost::default() }
    }
}

impl From<TaskError> for DataFusionError {
    fn from(error: TaskError) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for TaskError {
    fn from(error: DataFusionError) -> Self {
        classify(&error)
    }
}

/// Wraps one of our errors for DataFusion.
#[must_use]
pub fn to_datafusion(error: Error) -> DataFusionError {
    TaskError::from(error).into()
}

/// Our error for one of DataFusion's.
#[must_use]
pub fn from_datafusion(error: &DataFusionError) -> Error {
    classify(error).error
}

fn classify(error: &DataFusionError) -> TaskError {
    match error {
        DataFusionError::Context(_, inner) => classify(inner),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let TaskError { error, lost } = classify(inner);
            TaskError { error: error.at(diagnostic.span.and_then(place)), lost }
        }
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => classify(first),
            None => Error::internal("an empty collection of errors").into(),
        },
        DataFusionError::External(inner) => classify_source(inner.as_ref(), error),
        DataFusionError::ArrowError(inner, _) => classify_arrow(inner, error),
        DataFusionError::ObjectStore(inner) => object_store_error(inner).into(),
        DataFusionError::ParquetError(inner) => {
            if let ParquetError::External(source) = inner.as_ref() {
                return classify_source(source.as_ref(), error);
            }
            Error::invalid(format!("a Parquet file cannot be read: {inner}; check the file and its location")).into()
        }
        DataFusionError::IoError(inner) => io_error(inner).into(),
        DataFusionError::ResourcesExhausted(message) => Error::resources_exhausted(out_of_memory(message)).into(),
        DataFusionError::Internal(message) => Error::internal(first_line(message)).into(),
        DataFusionError::ExecutionJoin(join) => Error::internal(format!("a task of the query panicked: {join}")).into(),
        DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Execution(_)
        | DataFusionError::Substrait(_)
        | DataFusionError::Ffi(_) => Error::invalid(first_line(&error.strip_backtrace())).into(),
    }
}

/// Where a span begins.
fn place(span: Span) -> Option<Place> {
    let (line, column) = (u32::try_from(span.start.line).ok()?, u32::try_from(span.start.column).ok()?);
    (line > 0 && column > 0).then_some(Place { line, column })
}

fn classify_source(source: &(dyn std::error::Error + Send + Sync + 'static), whole: &DataFusionError) -> TaskError {
    if let Some(ours) = source.downcast_ref::<TaskError>() {
        return ours.clone();
    }
    if let Some(ours) = source.downcast_ref::<Error>() {
        return ours.clone().into();
    }
    if let Some(inner) = source.downcast_ref::<DataFusionError>() {
        return classify(inner);
    }
    if let Some(inner) = source.downcast_ref::<Arc<DataFusionError>>() {
        return classify(inner);
    }
    if let Some(inner) = source.downcast_ref::<ArrowError>() {
        return classify_arrow(inner, whole);
    }
    if let Some(inner) = source.downcast_ref::<object_store::Error>() {
        return object_store_error(inner).into();
    }
    if let Some(inner) = source.downcast_ref::<std::io::Error>() {
        return io_error(inner).into();
    }
    Error::invalid(first_line(&whole.strip_backtrace())).into()
}

fn classify_arrow(error: &ArrowError, whole: &DataFusionError) -> TaskError {
    match error {
        ArrowError::ExternalError(inner) => classify_source(inner.as_ref(), whole),
        ArrowError::IoError(_, inner) => io_error(inner).into(),
        ArrowError::MemoryError(message) => Error::resources_exhausted(message.clone()).into(),
        ArrowError::DivideByZero => {
            Error::invalid("Divide by zero: with NULLIF(divisor, 0) as the divisor such rows are NULL").into()
        }
        other => Error::invalid(format!("{}{}", first_line(&other.to_string()), advice(other))).into(),
    }
}

/// What to do about a value that does not fit, behind what Arrow says of it. Where a type is what is wrong, nothing helps.
fn advice(error: &ArrowError) -> &'static str {
    let is_value = |what: &str| {
        let beginnings =
            ["Cannot cast string", "Cannot cast value", "Can't cast value", "Error parsing timestamp from"];
        beginnings.iter().any(|beginning| what.starts_with(beginning)) || what.contains("Overflowing on")
    };
    match error {
        ArrowError::CastError(what) | ArrowError::ParseError(what) if is_value(what) => {
            "; TRY_CAST gives NULL for such values"
        }
        ArrowError::ArithmeticOverflow(_) => "; CAST an operand to a wider type, such as DECIMAL(38, 0) or DOUBLE",
        _ => "",
    }
}

/// Our error for an object store's.
#[must_use]
pub fn object_store_error(error: &object_store::Error) -> Error {
    use object_store::Error as Store;
    let (kind, what) = match error {
        Store::NotFound { path, .. } => (ErrorKind::NotFound, format!("{path} does not exist; check the location")),
        Store::PermissionDenied { path, .. } => (
            ErrorKind::Denied,
            format!("access to {path} is denied; check its permissions and the server's credentials"),
        ),
        Store::Unauthenticated { path, .. } => {
            (ErrorKind::Denied, format!("the store refused the credentials for {path}; check the server's environment"))
        }
        Store::AlreadyExists { path, .. } => (ErrorKind::Conflict, format!("{path} exists already")),
        other => match (source::<Error>(other), source::<std::io::Error>(other)) {
            (Some(ours), _) => return ours.clone(),
            (None, Some(io)) => return told_io_error(io, &with_path(other, io)),
            (None, None) => {
                (ErrorKind::Unavailable, format!("the object store failed: {}", first_line(&other.to_string())))
            }
        },
    };
    Error::new(kind, what)
}

/// What a store on a disk says of the system's error: mostly which path it is about.
fn with_path(error: &object_store::Error, io: &std::io::Error) -> String {
    let (system, store) =
        (io.to_string(), std::error::Error::source(error).map(|source| first_line(&source.to_string())));
    store.filter(|told| told.contains(&system)).unwrap_or(system)
}

fn source<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(e) = current {
        if let Some(found) = e.downcast_ref::<E>() {
            return Some(found);
        }
        current = e.source();
    }
    None
}

/// Our error for the operating system's.
#[must_use]
pub fn io_error(error: &std::io::Error) -> Error {
    told_io_error(error, &error.to_string())
}

/// The same in other words than the system's.
fn told_io_error(error: &std::io::Error, told: &str) -> Error {
    use std::io::ErrorKind as Io;
    let message = format!("input or output failed: {told}");
    // Libraries wrap the system's error in one of no kind.
    let inner = error.get_ref().and_then(|inner| source::<std::io::Error>(inner));
    match inner.map_or_else(|| error.kind(), std::io::Error::kind) {
        Io::NotFound => Error::not_found(message),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Error::denied(message),
        Io::NotADirectory | Io::IsADirectory | Io::InvalidInput | Io::InvalidFilename => {
            Error::invalid(format!("{message}; check the location"))
        }
        Io::AlreadyExists | Io::DirectoryNotEmpty => Error::conflict(message),
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
            Error::resources_exhausted(format!("{message}; {DISK_ADVICE}"))
        }
        _ => Error::unavailable(message),
    }
}

/// What to do when a disk is full.
const DISK_ADVICE: &str =
    "free some in --work-dir, where executors spill, and in --state, or give executors more --memory";

/// What to do when memory runs out.
const MEMORY_ADVICE: &str = "start executors with more --memory, or with fewer --slots that share it";

/// DataFusion's account of exhausted memory, several lines long, as one sentence.
fn out_of_memory(message: &str) -> String {
    let sentence = || {
        let (_, failed) = message.split_once("Failed to allocate additional ")?;
        let (wanted, rest) = failed.split_once(" for ")?;
        let (operator, rest) = rest.split_once(" with ")?;
        let (held, rest) = rest.split_once(" already allocated for this reservation - ")?;
        let (left, rest) = rest.split_once(" remain available")?;
        let total = rest.split_once("pool_size: ").and_then(|(_, size)| size.split(')').next());
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        Some(format!("memory ran out: {operator} holds {held} and wants {wanted} more, but {left}{of} are left"))
    };
    let whole = || message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    format!("{}; {MEMORY_ADVICE}", sentence().unwrap_or_else(whole))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind as Io;

    use super::*;

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let kind = |of: Io| io_error(&of.into()).kind;
        assert_eq!(kind(Io::NotADirectory), ErrorKind::Invalid);
        assert_eq!(kind(Io::InvalidFilename), ErrorKind::Invalid);
        assert_eq!(kind(Io::ReadOnlyFilesystem), ErrorKind::Denied);
        assert_eq!(kind(Io::DirectoryNotEmpty), ErrorKind::Conflict);
        assert_eq!(kind(Io::ConnectionReset), ErrorKind::Unavailable);
    }

    #[test]
    fn what_a_store_says_of_a_path_is_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("unable to open /a/b: {0}")]
        struct OfPath(#[source] std::io::Error);
        let source = Box::new(OfPath(Io::NotADirectory.into()));
        let error = object_store_error(&object_store::Error::Generic { store: "disk", source });
        let told = "input or output failed: unable to open /a/b: not a directory; check the location";
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, told));
    }

    #[test]
    fn values_that_do_not_fit_come_with_advice_and_types_without() {
        let told = |error: ArrowError| {
            let error = from_datafusion(&DataFusionError::ArrowError(Box::new(error), None));
            assert_eq!(error.kind, ErrorKind::Invalid);
            error.message
        };
        let zero = "Divide by zero: with NULLIF(divisor, 0) as the divisor such rows are NULL";
        assert_eq!(told(ArrowError::DivideByZero), zero);
        let value = "Cannot cast string 'x' to value of Int32 type";
        let advised = format!("Cast error: {value}; TRY_CAST gives NULL for such values");
        assert_eq!(told(ArrowError::CastError(value.to_owned())), advised);
        let unsupported = "Casting from Date32 to Boolean not supported";
        assert_eq!(told(ArrowError::CastError(unsupported.to_owned())), format!("Cast error: {unsupported}"));
        let sum = told(ArrowError::ArithmeticOverflow("Overflow happened on: 9 + 1".to_owned()));
        assert!(sum.starts_with("Arithmetic overflow: Overflow happened on: 9 + 1; CAST an operand"), "{sum}");
    }

    #[test]
    fn exhausted_memory_is_one_sentence_with_operator_sizes_and_setting() {
        let theirs = "Additional allocation failed for TopK[0] with top memory consumers (across reservations) as:\n  \
                      TopK[0]#0(can spill: false) consumed 37.8 MB, peak 37.8 MB.\nError: Failed to allocate additional \
                      1198.1 KB for TopK[0] with 37.8 MB already allocated for this reservation - 607.4 KB remain \
                      available for the total memory pool: fair(pool_size: 38.4 MB)";
        let ours = "memory ran out: TopK[0] holds 37.8 MB and wants 1198.1 KB more, but 607.4 KB of 38.4 MB are left; \
                    start executors with more --memory, or with fewer --slots that share it";
        assert_eq!(out_of_memory(theirs), ours);
        assert!(out_of_memory("two\nlines").starts_with("two; lines; "));
    }
}
