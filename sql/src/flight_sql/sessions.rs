//! Clients' settings, between their calls.
//!
//! A session begins with the first setting. Its client is told the session's id as a cookie; one that keeps no cookies is
//! known by the token of its handshake, or by its connection.
//!
//! Invariants: a session is of one user, whoever else shares the connection; a client whose cookie names a session that is gone
//! is told so once, before anything runs without its settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidemill_core::{Error, Result};

use super::identity::Caller;
use super::shelf::Shelf;
use crate::session::{ClientSettings, SettingChange};

/// Sessions of all clients.
const MAX_SESSIONS: usize = 4096;
/// How long one is kept that nobody uses.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Bytes of one setting's value.
const MAX_VALUE_BYTES: usize = 4096;
/// DataFusion's name for the setting that gives clients types that all of them know.
const EXPAND_VIEWS: &str = "datafusion.optimizer.expand_views_at_output";

/// The settings that a statement runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    fn of(client: &ClientSettings) -> Self {
        let mut entries = client.entries().clone();
        entries.entry(EXPAND_VIEWS.to_owned()).or_insert_with(|| "true".to_owned());
        Self(entries)
    }

    /// The settings that a ticket carries.
    pub(super) const fn from_entries(entries: BTreeMap<String, String>) -> Self {
        Self(entries)
    }

    /// Whether the client wants views of strings and bytes as they are.
    pub(super) fn keeps_views(&self) -> bool {
        self.0.get(EXPAND_VIEWS).is_some_and(|value| value.eq_ignore_ascii_case("false"))
    }

    pub(super) fn into_entries(self) -> BTreeMap<String, String> {
        self.0
    }
}

/// The sessions of all clients.
pub(super) struct Sessions {
    sessions: Shelf<ClientSettings>,
    /// Ids of the sessions of clients without cookies.
    of_others: Shelf<String>,
}

impl Default for Sessions {
    fn default() -> Self {
        let of_others = Shelf::new("sessions", MAX_SESSIONS, PATIENCE);
        Self { sessions: Shelf::new("sessions", MAX_SESSIONS, PATIENCE), of_others }
    }
}

impl Sessions {
    /// What the caller's statements run with.
    pub(super) fn settings(&self, caller: &Caller) -> Result<Settings> {
        Ok(Settings::of(&self.client_settings(caller)?))
    }

    /// What the caller has set.
    pub(super) fn client_settings(&self, caller: &Caller) -> Result<ClientSettings> {
        let id = self.id(caller)?;
        Ok(id.and_then(|id| self.sessions.with(&key(caller, &id), |settings| settings.clone())).unwrap_or_default())
    }

    /// Carries out a `SET` or `RESET`.
    pub(super) fn change(&self, caller: &Caller, change: &SettingChange) -> Result<()> {
        if let SettingChange::Set(key, value) = change
            && value.len() > MAX_VALUE_BYTES
        {
            return Err(Error::invalid(format!("{key} cannot be set to {} bytes: {MAX_VALUE_BYTES} fit", value.len())));
        }
        self.with(caller, |settings| settings.apply(change))
    }

    /// Begins a session where a statement may make something temporary.
    pub(super) fn begin_for(&self, caller: &Caller, sql: &str) -> Result<()> {
        if !ClientSettings::may_begin_session(sql) {
            return Ok(());
        }
        self.with(caller, |settings| {
            settings.begin_session(sql);
            Ok(())
        })
    }

    /// Remembers what a statement changed of the caller's session; these are its answer's columns without that.
    pub(super) fn remember(&self, caller: &Caller, answer: &SchemaRef) -> Result<SchemaRef> {
        match ClientSettings::are_told(answer) {
            true => self.with(caller, |settings| settings.remember(answer)),
            false => Ok(Arc::clone(answer)),
        }
    }

    fn with<R>(&self, caller: &Caller, change: impl FnOnce(&mut ClientSettings) -> Result<R>) -> Result<R> {
        let id = match self.id(caller)? {
            Some(id) => id,
            None => self.begin(caller)?,
        };
        self.sessions.with(&key(caller, &id), change).unwrap_or_else(|| Err(gone(&id)))
    }

    /// Ends the caller's session, if there is one; answers what it was.
    pub(super) fn close(&self, caller: &Caller) -> Option<ClientSettings> {
        let of_other = caller.other.as_ref().and_then(|other| self.of_others.take(&key(caller, other)));
        self.sessions.take(&key(caller, &caller.cookie.clone().or(of_other)?))
    }

    /// The secret names under which coordinators keep something for sessions.
    pub(super) fn kept(&self) -> Vec<String> {
        self.sessions.find(|settings| settings.session().map(str::to_owned))
    }

    /// The id that a caller without it is told.
    pub(super) fn id_to_tell(&self, caller: &Caller) -> Option<String> {
        match caller.cookie {
            Some(_) => None,
            None => self.of_other(caller),
        }
    }

    /// Forgets sessions that nobody uses; answers what they were.
    pub(super) fn give_up(&self) -> Vec<ClientSettings> {
        self.of_others.give_up();
        self.sessions.give_up()
    }

    fn id(&self, caller: &Caller) -> Result<Option<String>> {
        let Some(id) = &caller.cookie else { return Ok(self.of_other(caller)) };
        if self.sessions.with(&key(caller, id), |_| ()).is_none() {
            self.sessions.get_or_put(&key(caller, id), ClientSettings::default())?;
            return Err(gone(id));
        }
        Ok(Some(id.clone()))
    }

    fn of_other(&self, caller: &Caller) -> Option<String> {
        let id = self.of_others.with(&key(caller, caller.other.as_ref()?), |id| id.clone())?;
        self.sessions.with(&key(caller, &id), |_| ()).map(|()| id)
    }

    fn begin(&self, caller: &Caller) -> Result<String> {
        let other = caller.other.as_ref().ok_or_else(|| {
            Error::invalid("a setting needs a session, and nothing tells this client from others: let it keep cookies")
        })?;
        // Another call of the same client may begin it just now.
        let id = self.of_others.get_or_put(&key(caller, other), ulid::Ulid::new().to_string())?;
        self.sessions.get_or_put(&key(caller, &id), ClientSettings::default())?;
        Ok(id)
    }
}

/// Under which name something of a caller is on a shelf: others may share its connection, or know its cookie.
fn key(caller: &Caller, name: &str) -> String {
    format!("{} {name}", caller.user.name)
}

fn gone(id: &str) -> Error {
    Error::not_found(format!(
        "the session {id} is not known here (any longer), and its settings are gone, with its temporary views and tables: set \
         and make them again, what follows runs without"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(cookie: Option<&str>, other: Option<&str>) -> Caller {
        let (cookie, other) = (cookie.map(str::to_owned), other.map(str::to_owned));
        Caller { cookie, other, user: tidemill_core::Principal::anybody() }
    }

    fn set(sessions: &Sessions, caller: &Caller, value: &str) -> Result<()> {
        sessions.change(caller, &SettingChange::Set("datafusion.execution.batch_size".to_owned(), value.to_owned()))
    }

    fn batch_size(sessions: &Sessions, caller: &Caller) -> Result<Option<String>> {
        let settings = sessions.settings(caller)?.into_entries();
        Ok(settings.get("datafusion.execution.batch_size").cloned())
    }

    #[test]
    fn a_session_is_found_by_connection_and_then_by_cookie() {
        let (sessions, first, second) =
            (Sessions::default(), caller(None, Some("connection 1")), caller(None, Some("connection 2")));
        assert_eq!(set(&sessions, &first, "7"), Ok(()));
        assert_eq!(batch_size(&sessions, &first), Ok(Some("7".to_owned())));
        assert_eq!(batch_size(&sessions, &second), Ok(None));
        let cookie = sessions.id_to_tell(&first);
        let moved = caller(cookie.as_deref(), Some("connection 3"));
        assert_eq!(batch_size(&sessions, &moved), Ok(Some("7".to_owned())));
        sessions.close(&moved);
        assert_eq!(batch_size(&sessions, &first), Ok(None));
    }

    #[test]
    fn a_session_is_of_one_user_whoever_else_shares_the_connection() {
        let sessions = Sessions::default();
        let of = |name: &str, cookie: Option<&str>| {
            let user = tidemill_core::Principal { name: name.to_owned(), role: tidemill_core::Role::Write };
            Caller { user, ..caller(cookie, Some("connection 1")) }
        };
        assert_eq!(set(&sessions, &of("ann", None), "7"), Ok(()));
        let cookie = sessions.id_to_tell(&of("ann", None));
        assert_eq!(batch_size(&sessions, &of("bob", None)), Ok(None));
        assert_eq!(sessions.id_to_tell(&of("bob", None)), None);
        // Nor by her cookie.
        assert!(batch_size(&sessions, &of("bob", cookie.as_deref())).is_err());
        assert_eq!(batch_size(&sessions, &of("bob", cookie.as_deref())), Ok(None));
        assert!(sessions.close(&of("bob", cookie.as_deref())).is_some_and(|closed| closed.entries().is_empty()));
        assert_eq!(batch_size(&sessions, &of("ann", cookie.as_deref())), Ok(Some("7".to_owned())));
    }

    #[test]
    fn whoever_names_a_session_that_is_gone_is_told_once() {
        let (sessions, lost) = (Sessions::default(), caller(Some("01JD5Y7YV0T2X3Z4A5B6C7D8E9"), None));
        assert!(batch_size(&sessions, &lost).is_err_and(|e| e.message.contains("settings are gone")));
        assert_eq!(batch_size(&sessions, &lost), Ok(None));
        assert_eq!(set(&sessions, &lost, "9"), Ok(()));
        assert_eq!(batch_size(&sessions, &lost), Ok(Some("9".to_owned())));
    }

    #[test]
    fn without_anything_to_be_known_by_nothing_can_be_set() {
        let (sessions, nobody) = (Sessions::default(), caller(None, None));
        assert!(set(&sessions, &nobody, "7").is_err_and(|e| e.message.contains("cookies")));
        assert_eq!(batch_size(&sessions, &nobody), Ok(None));
    }
}
