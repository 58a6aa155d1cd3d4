//! The users' file: names, roles, and hashes of tokens and passwords.
//!
//! ```toml
//! [ann]
//! role = "write"
//! token = "blake3:3f0a…"                    # of a token that `tidemill user add` drew: as long as no one can guess
//!
//! [bob]
//! role = "read"
//! password = "$argon2id$v=19$m=19456,t=2,p=1$…"
//! ```
//!
//! It is read again when it changes. What cannot be read then changes nothing, and the log says so.
//!
//! Invariant: no secret is in the file, and none is kept here but as a hash.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use tidemill_core::{Error, Principal, Result, Role};
use tidemill_engine::peers::{random, read};
use tidemill_engine::secrets::Secret;

/// How often the file is looked at, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How tokens' hashes begin.
const HASHED: &str = "blake3:";
/// What tokens are hashed for.
const CONTEXT: &str = "tidemill 2026-11 token of a user";
/// How tokens begin, so that they are found where they should not be.
const TOKEN: &str = "tmu_";
/// Characters of a password, at the least and at the most.
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=1024;
/// Characters of a name, at the most.
const NAME: usize = 64;

/// A user as the file has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    role: Role,
    token: Option<String>,
    password: Option<String>,
}

/// A user.
#[derive(Clone)]
struct User {
    role: Role,
    token: Option<blake3::Hash>,
    password: Option<String>,
    /// Changes with everything above: what was given out for an earlier one is void.
    stamp: [u8; 32],
}

/// Who a user was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) principal: Principal,
    pub(super) stamp: [u8; 32],
}

type Names = BTreeMap<String, User>;

struct Loaded {
    users: Arc<Names>,
    version: Option<(SystemTime, u64)>,
    looked: Instant,
}

/// Who may use a cluster.
pub struct Users {
    path: PathBuf,
    loaded: RwLock<Loaded>,
    /// What passwords of unknown users are compared with, so that they take as long.
    nobody: String,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Users {
    /// Those of a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        let (version, users) = (version(path), Arc::new(load(path)?));
        let nobody = hash_password(&BASE64_URL_SAFE_NO_PAD.encode(random::<16>()?))?;
        let loaded = RwLock::new(Loaded { users, version, looked: Instant::now() });
        Ok(Self { path: path.to_owned(), loaded, nobody })
    }

    fn current(&self) -> Arc<Names> {
        {
            let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
            if loaded.looked.elapsed() < LOOK_EVERY {
                return Arc::clone(&loaded.users);
            }
        }
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked.elapsed() < LOOK_EVERY {
            // Somebody who had the lock before has looked.
            return Arc::clone(&loaded.users);
        }
        loaded.looked = Instant::now();
        let version = version(&self.path);
        if version != loaded.version {
            loaded.version = version;
            match load(&self.path) {
                Ok(users) => loaded.users = Arc::new(users),
                Err(error) => tracing::error!(%error, "the users' file is wrong: those that were known stay"),
            }
        }
        Arc::clone(&loaded.users)
    }

    /// Whose token this is. Takes as long for every wrong one.
    pub(super) fn by_token(&self, token: &str) -> Option<Known> {
        let shown = hash_token(token);
        let users = self.current();
        let mut found = None;
        for (name, user) in users.iter() {
            // All of them, whoever it is.
            if user.token.is_some_and(|token| token == shown) {
                found = Some(known(name, user));
            }
        }
        found
    }

    /// Whether that is the user's password. Takes long, and as long if there is no such user.
    pub(super) fn by_password(&self, name: &str, password: &str) -> Option<Known> {
        let users = self.current();
        let user = users.get(name);
        let hash = user.and_then(|user| user.password.as_deref());
        let is_right = PasswordHash::new(hash.unwrap_or(&self.nobody))
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        user.filter(|_| is_right && hash.is_some()).map(|user| known(name, user))
    }

    /// A user by name, as they are now.
    pub(super) fn by_name(&self, name: &str) -> Option<Known> {
        self.current().get(name).map(|user| known(name, user))
    }
}

fn known(name: &str, user: &User) -> Known {
    Known { principal: Principal { name: name.to_owned(), role: user.role }, stamp: user.stamp }
}

fn version(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn load(path: &Path) -> Result<Names> {
    let wrong = |why: String| Error::invalid(format!("the users' file {}: {why}", path.display()));
    let text = String::from_utf8(read(path, "the users' file")?).map_err(|_| wrong("it is no text".to_owned()))?;
    // The parser's own words would show the line.
    let entries: BTreeMap<String, Entry> = toml::from_str(&text).map_err(|e| wrong(e.message().to_owned()))?;
    let users = entries.into_iter().map(|(name, entry)| {
        let user = user(&name, &entry).map_err(|why| wrong(format!("`{name}`: {why}")))?;
        Ok::<_, Error>((name, user))
    });
    users.collect()
}

fn user(name: &str, entry: &Entry) -> Result<User, String> {
    check_name(name)?;
    let make = "make it with `tidemill user add`";
    let token = match entry.token.as_deref().map(|token| token.strip_prefix(HASHED)) {
        Some(Some(hex)) => Some(blake3::Hash::from_hex(hex).map_err(|_| format!("the token's hash is none: {make}"))?),
        Some(None) => return Err(format!("the token is no hash, and a secret must not stand there: {make}")),
        None => None,
    };
    if let Some(password) = &entry.password {
        let is_hash = PasswordHash::new(password).is_ok_and(|hash| hash.algorithm.as_str().starts_with("argon2"));
        if !is_hash {
            return Err(format!("the password is no hash, and a secret must not stand there: {make}"));
        }
    }
    if token.is_none() && entry.password.is_none() {
        return Err(format!("there is neither a token nor a password: {make}"));
    }
    let of = [name, entry.role.name(), entry.token.as_deref().unwrap_or(""), entry.password.as_deref().unwrap_or("")];
    let stamp = *blake3::hash(of.join("\n").as_bytes()).as_bytes();
    Ok(User { role: entry.role, token, password: entry.password.clone(), stamp })
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match !name.is_empty() && name.len() <= NAME && name.chars().all(fits) {
        true => Ok(()),
        false => Err(format!("a name has up to {NAME} letters, digits, `-`, `_`, `.` and `@`")),
    }
}

fn hash_token(token: &str) -> blake3::Hash {
    blake3::Hash::from(blake3::derive_key(CONTEXT, token.as_bytes()))
}

fn hash_password(password: &str) -> Result<String> {
    let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|e| Error::unavailable(format!("the password cannot be hashed: {e}")))
}

/// How a new user shows who they are.
pub enum Shown {
    /// By a token that is drawn for them.
    Token,
    /// By a password.
    Password(Secret),
}

/// Somebody who is to be let in.
pub struct NewUser {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How they show who they are.
    pub shown: Shown,
}

impl NewUser {
    /// Adds them to a users' file, which is made if there is none. Their token, where one was drawn: it is nowhere else.
    ///
    /// # Errors
    /// The name is taken or cannot be one, the password is too short, or the file cannot be read or written.
    pub fn add_to(&self, path: &Path) -> Result<Option<Secret>> {
        check_name(&self.name).map_err(|why| Error::invalid(format!("`{}`: {why}", self.name)))?;
        let there = if path.exists() { load(path)? } else { Names::new() };
        if there.contains_key(&self.name) {
            return Err(Error::conflict(format!(
                "there is a user `{}` in {} already: take that part out of the file first",
                self.name,
                path.display()
            )));
        }
        let (token, line) = match &self.shown {
            Shown::Token => {
                let token = format!("{TOKEN}{}", BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?));
                let line = format!("token = \"{HASHED}{}\"", hash_token(&token).to_hex());
                (Some(Secret::new(token)), line)
            }
            Shown::Password(password) => {
                let characters = password.expose().chars().count();
                if !PASSWORD.contains(&characters) {
                    let (least, most) = (PASSWORD.start(), PASSWORD.end());
                    return Err(Error::invalid(format!(
                        "the password has {characters} characters: give it {least} to {most}"
                    )));
                }
                (None, format!("password = \"{}\"", hash_password(password.expose())?))
            }
        };
        append(path, &format!("[\"{}\"]\nrole = \"{}\"\n{line}\n", self.name, self.role))?;
        Ok(token)
    }
}

/// Adds to a file, which then has all of it or nothing. Only its owner may read it if it is new.
fn append(path: &Path, entry: &str) -> Result<()> {
    use std::io::Write as _;
    let unwritable = |e: &dyn fmt::Display| Error::invalid(format!("{} cannot be written: {e}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let before = if path.exists() { std::fs::read_to_string(path).map_err(|e| unwritable(&e))? } else { String::new() };
    let gap = if before.is_empty() { "" } else { "\n" };
    // Its like has no rights but its owner's.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| unwritable(&e))?;
    file.write_all(format!("{before}{gap}{entry}").as_bytes()).map_err(|e| unwritable(&e))?;
    if let Ok(there) = std::fs::metadata(path) {
        file.as_file().set_permissions(there.permissions()).map_err(|e| unwritable(&e))?;
    }
    file.as_file().sync_all().map_err(|e| unwritable(&e))?;
    file.persist(path).map(|_| ()).map_err(|e| unwritable(&e.error))
}

/// A role by its name.
///
/// # Errors
/// There is no such role.
pub(crate) fn role(name: &str) -> Result<Role> {
    let role = Role::ALL.into_iter().find(|role| role.name() == name);
    role.ok_or_else(|| Error::invalid(format!("there is no role `{name}`: use read, write or admin")))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    fn add(path: &Path, name: &str, role: Role, shown: Shown) -> Option<Secret> {
        NewUser { name: name.to_owned(), role, shown }.add_to(path).expect("a user")
    }

    #[test]
    fn users_are_known_by_what_they_were_given_and_nothing_of_it_is_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        let token = add(&path, "ann", Role::Write, Shown::Token).expect("a token");
        add(&path, "bob", Role::Read, Shown::Password(Secret::new("correct horse")));
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(!text.contains(token.expose()) && !text.contains("correct horse"), "{text}");
        let users = Users::open(&path).expect("users");
        let ann = users.by_token(token.expose()).expect("ann");
        assert_eq!(ann.principal, Principal { name: "ann".to_owned(), role: Role::Write });
        assert_eq!(users.by_name("ann"), Some(ann));
        let bob = users.by_password("bob", "correct horse").expect("bob");
        assert_eq!(bob.principal.role, Role::Read);
        for (name, password) in [("bob", "correct horsf"), ("ann", token.expose()), ("ann", ""), ("eve", "x"), ("", "")]
        {
            assert_eq!(users.by_password(name, password), None, "{name}");
        }
        for wrong in ["", "tmu_", "correct horse"] {
            assert_eq!(users.by_token(wrong), None, "{wrong}");
        }
        let again = NewUser { name: "ann".to_owned(), role: Role::Read, shown: Shown::Token };
        assert!(again.add_to(&path).is_err_and(|e| e.kind == tidemill_core::ErrorKind::Conflict));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read it");
    }

    #[test]
    fn secrets_in_the_file_are_refused_and_not_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        for wrong in [
            "[ann]\nrole = \"write\"\ntoken = \"xyzzy\"",
            "[ann]\nrole = \"write\"\npassword = \"xyzzy\"",
            "[ann]\nrole = \"write\"\ntoken = \"blake3:xyzzy\"",
            "[ann]\nrole = \"write\"",
            "[ann]\nrole = \"xyzzy?\"\ntoken = \"x\"",
            "[ann]\nrole = \"write\"\npasswd = \"xyzzy\"",
            "[\"a b\"]\nrole = \"write\"\ntoken = \"x\"",
            "ann = \"xyzzy",
        ] {
            std::fs::write(&path, wrong).expect("a file");
            let refused = Users::open(&path).expect_err(wrong);
            let repeats = refused.message.contains("xyzzy") && !wrong.contains("role = \"xyzzy");
            assert!(!repeats && refused.message.contains("users.toml"), "{refused}");
        }
    }
}
