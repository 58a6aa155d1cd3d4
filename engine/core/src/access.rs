//! Who asks for something, and what they may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What somebody may do. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Queries, `EXPLAIN`, `SHOW`, system tables.
    Read,
    /// Also what changes files, tables and the catalogue.
    Write,
    /// Everything, also with the runs of others.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// Its name in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The user's name; empty for whoever uses a cluster that knows no users.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

impl Default for Principal {
    /// Somebody who was not asked who they are: they may do the least.
    fn default() -> Self {
        Self { name: String::new(), role: Role::Read }
    }
}

impl Principal {
    /// Whoever uses a cluster that knows no users: everything is theirs.
    #[must_use]
    pub const fn anybody() -> Self {
        Self { name: String::new(), role: Role::Admin }
    }

    /// Whether a run of `owner` is theirs to look at and to end. One without an owner is everybody's who may do everything.
    #[must_use]
    pub fn owns(&self, owner: Option<&Self>) -> bool {
        self.role == Role::Admin || owner.is_some_and(|owner| owner.name == self.name && !self.name.is_empty())
    }

    /// Refuses what needs another role; `what` is the subject of the sentence, as in `COPY`.
    ///
    /// # Errors
    /// Their role does not include `needed`.
    pub fn require(&self, needed: Role, what: &str) -> Result<()> {
        match self.role >= needed {
            true => Ok(()),
            false => Err(Error::denied(format!(
                "{what} needs the role {needed}, and the user `{}` has the role {}: ask an administrator, or sign in as \
                 somebody else",
                self.name, self.role
            ))),
        }
    }

    /// What is recorded with a run; nothing where users are not known.
    #[must_use]
    pub fn recorded(self) -> Option<Self> {
        (!self.name.is_empty()).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, role: Role) -> Principal {
        Principal { name: name.to_owned(), role }
    }

    #[test]
    fn runs_belong_to_who_submitted_them_and_to_administrators() {
        let (ann, bob, root) = (user("ann", Role::Write), user("bob", Role::Write), user("root", Role::Admin));
        assert!(ann.owns(Some(&ann)) && root.owns(Some(&ann)) && root.owns(None));
        assert!(!bob.owns(Some(&ann)) && !bob.owns(None));
        // Who was not asked is nobody in particular.
        assert!(!Principal::default().owns(Some(&Principal::default())));
        assert!(Principal::anybody().owns(None));
    }

    #[test]
    fn a_role_includes_those_before_it() {
        for (at, role) in Role::ALL.into_iter().enumerate() {
            for (needs, needed) in Role::ALL.into_iter().enumerate() {
                assert_eq!(user("ann", role).require(needed, "COPY").is_ok(), at >= needs, "{role} for {needed}");
            }
        }
    }
}
