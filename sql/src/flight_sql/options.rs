//! The messages of Flight's session options, which `arrow-flight` does not have. Field numbers are those of `Flight.proto`.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// The value of one option.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionValue {
    /// None takes the option back.
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(super) value: Option<OptionValue>,
}

/// What it may be.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum OptionValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    StringList(StringList),
}

/// Several strings.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StringList {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

/// The request of `SetSessionOptions`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) options: BTreeMap<String, SessionOptionValue>,
}

/// Its result: what was not set.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) errors: BTreeMap<String, OptionError>,
}

/// Why an option was not set.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct OptionError {
    #[prost(enumeration = "ErrorValue", tag = "1")]
    pub(super) value: i32,
}

/// What may be wrong with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum ErrorValue {
    Unspecified = 0,
    /// There is no such option.
    InvalidName = 1,
    /// Its value does not fit.
    InvalidValue = 2,
    /// Something else.
    Error = 3,
}

/// The result of `GetSessionOptions`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) options: BTreeMap<String, SessionOptionValue>,
}

/// The result of `CloseSession`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    pub(super) status: i32,
}

/// How closing a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum CloseStatus {
    Unspecified = 0,
    /// It has ended.
    Closed = 1,
    /// It is ending.
    Closing = 2,
    /// It goes on.
    NotCloseable = 3,
}

impl SessionOptionValue {
    /// An option whose value is a text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { value: Some(OptionValue::String(text.into())) }
    }

    /// The value as a setting's text; nothing takes the setting back.
    pub(super) fn into_setting(self) -> Option<String> {
        self.value.map(|value| match value {
            OptionValue::String(text) => text,
            OptionValue::Bool(value) => value.to_string(),
            OptionValue::Int64(value) => value.to_string(),
            OptionValue::Double(value) => value.to_string(),
            OptionValue::StringList(list) => list.values.join(","),
        })
    }
}
