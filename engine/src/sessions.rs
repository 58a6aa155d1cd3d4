//! What a client's session sends with its statements, beside settings, and what becomes of its secret name.
//!
//! Invariant: nothing that is kept or shown has the name. Whoever only reads it there cannot read the session's tables.

use std::collections::BTreeMap;

use tidemill_core::SessionId;

/// The setting that holds the session's secret name; behind a coordinator's door it holds the hash of it.
pub const SESSION: &str = "tidemill.session";
/// How the settings begin that hold definitions of the session's temporary tables and views.
pub const TEMPORARY: &str = "tidemill.temporary.";

/// What a session is called by everybody but its client.
#[must_use]
pub fn session_id(name: &str) -> SessionId {
    SessionId(blake3::hash(name.as_bytes()).to_hex().to_string())
}

/// Puts the hash in the place of the name.
pub fn conceal(settings: &mut BTreeMap<String, String>) {
    if let Some(name) = settings.get_mut(SESSION) {
        *name = session_id(name).0;
    }
}

/// The session that concealed settings belong to.
#[must_use]
pub fn session_of(settings: &BTreeMap<String, String>) -> Option<SessionId> {
    settings.get(SESSION).cloned().map(SessionId)
}

/// Whether a setting is the session's own, and none that a user sets.
#[must_use]
pub fn is_of_session(key: &str) -> bool {
    key == SESSION || key.starts_with(TEMPORARY)
}
