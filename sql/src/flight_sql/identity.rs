//! Who calls. Every call passes here first.
//!
//! Everybody is let in: there is no authentication yet. When there is, it refuses here, and here it says who a token is.

use tidemill_core::Result;
use tonic::Request;

/// The cookie that Flight gives sessions.
pub(super) const SESSION_COOKIE: &str = "arrow_flight_session_id";

/// How a caller is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The session that its cookie names.
    pub(super) cookie: Option<String>,
    /// What stands for it where it has no cookie: the token that it got for its handshake, or its connection.
    pub(super) other: Option<String>,
}

/// The caller of a call.
///
/// # Errors
/// It is not let in: never, as yet.
pub(super) fn identify<T>(request: &Request<T>) -> Result<Caller> {
    let metadata = request.metadata();
    let cookies = metadata.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies.flat_map(|value| value.split(';')).find_map(session_of);
    let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).filter(|token| is_ours(token));
    let connection = || request.remote_addr().map(|address| format!("connection {address}"));
    let other = token.map(|token| format!("token {token}")).or_else(connection);
    Ok(Caller { cookie, other })
}

/// A token that nobody has yet.
pub(super) fn new_token() -> String {
    ulid::Ulid::new().to_string()
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
mod tests {
    use super::*;

    fn caller(header: &'static str, value: &'static str) -> Option<Caller> {
        let mut request = Request::new(());
        request.metadata_mut().append(header, value.parse().ok()?);
        identify(&request).ok()
    }

    #[test]
    fn callers_are_known_by_our_cookie_or_token_only() {
        let known = |cookie: Option<&str>, other: Option<&str>| {
            Some(Caller { cookie: cookie.map(str::to_owned), other: other.map(str::to_owned) })
        };
        let id = "01JD5Y7YV0T2X3Z4A5B6C7D8E9";
        assert_eq!(caller("cookie", "a=b; arrow_flight_session_id=01JD5Y7YV0T2X3Z4A5B6C7D8E9"), known(Some(id), None));
        assert_eq!(caller("cookie", "arrow_flight_session_id=../../etc"), known(None, None));
        let token = format!("token {id}");
        assert_eq!(caller("authorization", "Bearer 01JD5Y7YV0T2X3Z4A5B6C7D8E9"), known(None, Some(&token)));
        assert_eq!(caller("authorization", "Bearer of-somebody-else"), known(None, None));
    }
}
