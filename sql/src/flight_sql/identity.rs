//! Who calls, and how they are known again. The gate (`security/gate.rs`) has let them in by then.

use tidemill_core::{Error, Principal, Result};
use tonic::Request;

use crate::security::passes::PASS;

/// The cookie that Flight gives sessions.
pub(super) const SESSION_COOKIE: &str = "arrow_flight_session_id";

/// How a caller is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The session that its cookie names.
    pub(super) cookie: Option<String>,
    /// What stands for it where it has no cookie: the token that it got for its handshake, or its connection.
    pub(super) other: Option<String>,
    /// Who they are.
    pub(super) user: Principal,
}

/// The caller of a call.
///
/// # Errors
/// No gate has let it in.
pub(super) fn identify<T>(request: &Request<T>) -> Result<Caller> {
    let user = request.extensions().get::<Principal>().cloned();
    let user = user.ok_or_else(|| Error::internal("a call came past the gate"))?;
    let metadata = request.metadata();
    let cookies = metadata.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies.flat_map(|value| value.split(';')).find_map(session_of);
    let token = bearer(request).filter(|token| is_of_handshake(token));
    let connection = || request.remote_addr().map(|address| format!("connection {address}"));
    // Not the token itself: it is a secret.
    let other = token.map(|token| format!("token {}", blake3::hash(token.as_bytes()))).or_else(connection);
    Ok(Caller { cookie, other, user })
}

/// The pass that a call shows: whoever has one gets no other for it, or it would be good for ever.
pub(super) fn pass_of<T>(request: &Request<T>) -> Option<String> {
    bearer(request).filter(|token| token.starts_with(PASS)).map(str::to_owned)
}

fn bearer<T>(request: &Request<T>) -> Option<&str> {
    let (scheme, token) = request.metadata().get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A token that nobody has yet.
pub(super) fn new_token() -> String {
    ulid::Ulid::new().to_string()
}

/// Whether a token was given for a handshake: then one client has it. A user's own token may be that of many.
fn is_of_handshake(token: &str) -> bool {
    is_ours(token) || token.starts_with(PASS)
}

/// Whether a token or a session's id looks like one of ours: whatever else others send means nothing here.
fn is_ours(name: &str) -> bool {
    name.parse::<ulid::Ulid>().is_ok()
}

fn session_of(cookie: &str) -> Option<String> {
    let (name, value) = cookie.trim().split_once('=')?;
    let value = value.trim_matches('"');
    (name == SESSION_COOKIE && is_ours(value)).then(|| value.to_owned())
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    fn caller(header: &'static str, value: &'static str) -> Option<Caller> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Principal::anybody());
        request.metadata_mut().append(header, value.parse().ok()?);
        identify(&request).ok()
    }

    #[test]
    fn callers_are_known_by_our_cookie_or_token_only() {
        let known = |cookie: Option<&str>, other: Option<&str>| {
            let (cookie, other) = (cookie.map(str::to_owned), other.map(str::to_owned));
            Some(Caller { cookie, other, user: Principal::anybody() })
        };
        let id = "01JD5Y7YV0T2X3Z4A5B6C7D8E9";
        assert_eq!(caller("cookie", "a=b; arrow_flight_session_id=01JD5Y7YV0T2X3Z4A5B6C7D8E9"), known(Some(id), None));
        assert_eq!(caller("cookie", "arrow_flight_session_id=../../etc"), known(None, None));
        let token = format!("token {}", blake3::hash(id.as_bytes()));
        assert_eq!(caller("authorization", "Bearer 01JD5Y7YV0T2X3Z4A5B6C7D8E9"), known(None, Some(&token)));
        assert_eq!(caller("authorization", "Bearer of-somebody-else"), known(None, None));
        assert!(identify(&Request::new(())).is_err(), "no gate let it in");
        for (shown, pass) in [("Bearer tms_x", Some("tms_x")), ("bearer  tms_x ", Some("tms_x")), ("Basic tms_x", None)]
        {
            let mut request = Request::new(());
            request.metadata_mut().append("authorization", shown.parse().expect("a header"));
            assert_eq!(pass_of(&request).as_deref(), pass, "{shown}");
        }
    }
}
