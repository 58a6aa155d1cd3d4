//! What went wrong, said as what the caller must do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the caller must do. Survives the wire; nothing is recovered by reading a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// Fix the request.
    Invalid,
    /// Name something that exists.
    NotFound,
    /// Somebody else was first: look, then decide.
    Conflict,
    /// Retry later.
    Unavailable,
    /// The engine runs the producer of the input again.
    LostInput,
    /// Give it less data or more memory.
    ResourcesExhausted,
    /// Obtain permission.
    Denied,
    /// The caller asked for this end.
    Cancelled,
    /// Report it: a bug of ours.
    Internal,
}

impl ErrorKind {
    /// Every kind, for exhaustive tests of encodings.
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Unavailable,
        Self::LostInput,
        Self::ResourcesExhausted,
        Self::Denied,
        Self::Cancelled,
        Self::Internal,
    ];
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::LostInput => "lost input",
            Self::ResourcesExhausted => "resources exhausted",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        };
        f.write_str(name)
    }
}

/// A place in a statement's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The character of the line, from 1.
    pub column: u32,
}

/// One sentence for the user and the kind for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller must do.
    pub kind: ErrorKind,
    /// What failed, where, and what to do, in one sentence.
    pub message: String,
    /// Where in the statement it is, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Error {
    /// An error of no certain place.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: None }
    }

    /// The same at a place, unless it has one.
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Self {
        Self { place: self.place.or(place), ..self }
    }
}

/// A result with Tidemill's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* #[must_use] pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// The request must be fixed.
    invalid => Invalid,
    /// The named thing does not exist.
    not_found => NotFound,
    /// Somebody else was first.
    conflict => Conflict,
    /// Worth a retry later.
    unavailable => Unavailable,
    /// An input's producer must run again.
    lost_input => LostInput,
    /// Less data or more memory.
    resources_exhausted => ResourcesExhausted,
    /// Permission is missing.
    denied => Denied,
    /// The caller asked for this end.
    cancelled => Cancelled,
    /// A bug of ours.
    internal => Internal,
}
