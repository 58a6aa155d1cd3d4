//! Tokens of sessions: what a client gets for its password, and shows from then on.
//!
//! A pass names its user and says when it was given out, signed with a key that the cluster token gives: so it is good with
//! the next coordinator, too, and nothing is kept of it here. It is void when its user's part of the users' file changes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tidemill_core::Result;
use tidemill_engine::peers::random;

use super::users::{Known, Users};

/// How long a pass is good.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// By how much clocks of coordinators may differ.
const SKEW: Duration = Duration::from_secs(300);
/// How passes begin.
pub(crate) const PASS: &str = "tms_";

/// Gives out passes, and knows them again.
#[derive(Clone)]
pub(super) struct Passes([u8; 32]);

/// The parts of a pass: when it was given out, what makes it unlike others, the signature; then comes the name.
const TIME: usize = 8;
const NONCE: usize = 16;
const SIGNATURE: usize = 32;

impl Passes {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn signature(&self, signed: &[u8], known: &Known) -> blake3::Hash {
        let text = [signed, &known.stamp, known.principal.name.as_bytes()].concat();
        blake3::keyed_hash(&self.0, &text)
    }

    /// A pass for a user.
    pub(super) fn give(&self, known: &Known, now: SystemTime) -> Result<String> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut pass = since.to_be_bytes().to_vec();
        pass.extend(random::<NONCE>()?);
        let signature = self.signature(&pass, known);
        pass.extend(signature.as_bytes());
        pass.extend(known.principal.name.as_bytes());
        Ok(format!("{PASS}{}", BASE64_URL_SAFE_NO_PAD.encode(pass)))
    }

    /// Whose pass that is, if it is good.
    pub(super) fn check(&self, pass: &str, users: &Users, now: SystemTime) -> Option<Known> {
        let pass = BASE64_URL_SAFE_NO_PAD.decode(pass.strip_prefix(PASS)?).ok()?;
        let (signed, rest) = pass.split_at_checked(TIME + NONCE)?;
        let (signature, name) = rest.split_at_checked(SIGNATURE)?;
        let given =
            UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_be_bytes(signed.get(..TIME)?.try_into().ok()?)))?;
        let known = users.by_name(std::str::from_utf8(name).ok()?)?;
        // In a time that does not depend on how much of it is right.
        let is_ours = self.signature(signed, &known) == *signature;
        let age = now.duration_since(given);
        let is_in_time = age.as_ref().map_or_else(|early| early.duration() < SKEW, |age| *age < GOOD_FOR);
        (is_ours && is_in_time).then_some(known)
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use tidemill_core::Role;

    use super::super::users::{NewUser, Shown};
    use super::*;

    #[test]
    fn a_pass_is_good_for_its_user_its_time_and_its_cluster() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        for name in ["ann", "bob"] {
            let user = NewUser { name: name.to_owned(), role: Role::Read, shown: Shown::Token };
            user.add_to(&path).expect("a user");
        }
        let users = Users::open(&path).expect("users");
        let (passes, now) = (Passes::new([1; 32]), SystemTime::now());
        let ann = users.by_name("ann").expect("ann");
        let pass = passes.give(&ann, now).expect("a pass");
        assert_eq!(passes.check(&pass, &users, now), Some(ann.clone()));
        assert_ne!(passes.give(&ann, now).ok(), Some(pass.clone()), "each is another");
        assert_eq!(passes.check(&pass, &users, now + GOOD_FOR), None);
        assert_eq!(passes.check(&pass, &users, now - 2 * SKEW), None);
        assert_eq!(Passes::new([2; 32]).check(&pass, &users, now), None);
        // With another name in it.
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&pass[PASS.len()..]).expect("base64");
        let name = bytes.len() - 3;
        bytes[name..].copy_from_slice(b"bob");
        let forged = format!("{PASS}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(passes.check(&forged, &users, now), None);
        for wrong in ["", "tms_", "tms_AAAA", "tms_%"] {
            assert_eq!(passes.check(wrong, &users, now), None, "{wrong}");
        }
        // After the user's entry changed.
        let text = std::fs::read_to_string(&path).expect("a file").replacen("read", "write", 1);
        std::fs::write(&path, text).expect("a file");
        let users = Users::open(&path).expect("users");
        assert_eq!(passes.check(&pass, &users, now), None);
    }
}
