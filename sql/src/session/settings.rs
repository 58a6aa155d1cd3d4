//! Settings: what a client may set, and what a run takes from them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::{LogicalPlan, Statement};
use datafusion::prelude::{SessionConfig, SessionContext};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::plan::ExchangeSettings;
use tidemill_engine::runtime::planning_config;
use tidemill_engine::sessions::is_of_session;
use tidemill_engine::wire::Durability;

use super::statements;
use super::temporary::Temporaries;
use crate::datasets::Pins;

/// The directory that relative locations in a client's statements belong to.
pub const CLIENT_DIRECTORY: &str = "tidemill.client_directory";
/// Whether exchange data goes into the store, where the server has one: `always`, `auto` or `off`.
const DURABILITY: &str = "tidemill.durability";
/// For tests: every frame goes through its encoding.
pub const FORCE_ENCODE: &str = "tidemill.test.force_encode";
/// The settings of our own.
const KNOWN: [&str; 3] = [CLIENT_DIRECTORY, DURABILITY, FORCE_ENCODE];
/// What is the server's, in DataFusion's names.
const RUNTIME: &str = "datafusion.runtime.";
/// DataFusion's name for the number of partitions.
const PARTITIONS: &str = "datafusion.execution.target_partitions";
/// Partitions while no executor is connected.
const DEFAULT_PARTITIONS: usize = 2;
/// More would make control data grow beyond what is useful.
const MAX_PARTITIONS: usize = 8192;

/// A client's settings, checked when they are set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientSettings(BTreeMap<String, String>);

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl ClientSettings {
    /// Sets one. Short names of DataFusion's settings are completed (`time_zone`).
    ///
    /// # Errors
    /// It is unknown, or the value does not fit.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if is_of_session(&key.to_lowercase()) {
            return Err(unknown(key));
        }
        let mut changed = self.0.clone();
        changed.insert(key.to_lowercase(), value.to_owned());
        RunSettings::new(&changed, 0, None)
            .map_err(|e| Error { message: format!("{key} cannot be set to `{value}`: {}", e.message), ..e })?;
        self.0 = changed;
        Ok(())
    }

    /// Whether there is a setting of that name.
    #[must_use]
    pub fn is_known(key: &str) -> bool {
        let key = key.to_lowercase();
        KNOWN.contains(&key.as_str()) || ConfigOptions::default().entries().iter().any(|entry| entry.key == key)
    }

    /// Forgets one.
    pub fn reset(&mut self, key: &str) {
        let key = key.to_lowercase();
        if !is_of_session(&key) {
            self.0.remove(&key);
        }
    }

    /// Carries out a `SET` or `RESET`.
    ///
    /// # Errors
    /// The setting is unknown, or the value does not fit.
    pub fn apply(&mut self, change: &SettingChange) -> Result<()> {
        match change {
            SettingChange::Set(key, value) => self.set(key, value)?,
            SettingChange::Reset(key) => self.reset(key),
        }
        Ok(())
    }

    /// All there are, with the values that a run would get from them.
    ///
    /// # Errors
    /// One does not fit: [`Self::set`] lets none of these in.
    pub fn all(&self) -> Result<Vec<(String, String)>> {
        let settings = RunSettings::new(&self.0, 0, None)?;
        let own = [
            (DURABILITY, settings.exchange.durability.as_str_name().trim_start_matches("DURABILITY_").to_lowercase()),
            (FORCE_ENCODE, settings.exchange.force_encode.to_string()),
        ];
        let entries = settings.config.options().entries().into_iter();
        let theirs = entries.filter(|entry| !entry.key.starts_with(RUNTIME));
        let theirs = theirs.map(|entry| (entry.key, entry.value.unwrap_or_default()));
        Ok(own.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(theirs).collect())
    }

    /// What is sent with statements.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// What was set: not what the session sends beside it.
    pub fn shown(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().filter(|(key, _)| !is_of_session(key))
    }

    pub(super) const fn entries_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.0
    }
}

/// What a `SET` or `RESET` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingChange {
    /// A setting gets a value.
    Set(String, String),
    /// A setting is forgotten.
    Reset(String),
}

impl SettingChange {
    /// Whether a statement begins as a change.
    #[must_use]
    pub fn is_begun_by(sql: &str) -> bool {
        statements::begins_with(sql, "set") || statements::begins_with(sql, "reset")
    }

    /// The change that a statement asks for; `None` for other statements, which are for the coordinator.
    ///
    /// # Errors
    /// It begins as a change and is none.
    pub async fn of(sql: &str) -> Result<Option<Self>> {
        if !Self::is_begun_by(sql) {
            return Ok(None);
        }
        let statement = statements::parse_one(sql)?;
        let plan = SessionContext::new().state().statement_to_plan(statement).await;
        match plan.map_err(|e| from_datafusion(&e))? {
            LogicalPlan::Statement(Statement::SetVariable(set)) => Ok(Some(Self::Set(set.variable, set.value))),
            LogicalPlan::Statement(Statement::ResetVariable(reset)) => Ok(Some(Self::Reset(reset.variable))),
            other => Err(Error::invalid(format!("{} changes no setting", other.display()))),
        }
    }
}

/// What one run takes from its client's settings.
#[derive(Debug, Clone)]
pub(crate) struct RunSettings {
    /// Plans the run.
    pub(crate) config: SessionConfig,
    /// Where relative locations start.
    pub(crate) directory: Option<PathBuf>,
    /// What becomes of exchange data.
    pub(crate) exchange: ExchangeSettings,
    /// Which versions of datasets the run reads.
    pub(crate) pins: Pins,
    /// The session's own views and tables.
    pub(super) temporaries: Arc<Temporaries>,
}

fn unknown(key: &str) -> Error {
    Error::invalid(format!("there is no setting `{key}`: see SHOW ALL"))
}

impl RunSettings {
    /// The same for a statement that sees other temporary views and tables.
    pub(super) fn seeing(&self, temporaries: Temporaries) -> Self {
        Self { temporaries: Arc::new(temporaries), ..self.clone() }
    }

    /// Checks settings; without a setting, a run has as many partitions as the cluster has slots.
    ///
    /// # Errors
    /// A setting is unknown, or its value does not fit.
    pub(crate) fn new(settings: &BTreeMap<String, String>, slots: u32, task_memory: Option<u64>) -> Result<Self> {
        let is_known = |key: &str| KNOWN.contains(&key) || is_of_session(key);
        if let Some(key) = settings.keys().find(|key| key.starts_with("tidemill.") && !is_known(key)) {
            return Err(unknown(key));
        }
        if let Some(runtime) = settings.keys().find(|k| k.starts_with(RUNTIME)) {
            return Err(Error::invalid(format!("`{runtime}` is the server's: start executors with another --memory")));
        }
        let partitions = match slots {
            0 => DEFAULT_PARTITIONS,
            slots => slots as usize,
        };
        let config = planning_config(partitions, task_memory, settings).map_err(|e| from_datafusion(&e))?;
        let chosen = config.target_partitions();
        if chosen == 0 || chosen > MAX_PARTITIONS {
            return Err(Error::invalid(format!("{PARTITIONS} is {chosen}: set it from 1 to {MAX_PARTITIONS}")));
        }
        let force_encode = match settings.get(FORCE_ENCODE).map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(Error::invalid(format!("{FORCE_ENCODE} is `{other}`: set true or false"))),
        };
        let durability = match settings.get(DURABILITY).map(String::as_str) {
            None | Some("always") => Durability::Always,
            Some("auto") => Durability::Auto,
            Some("off") => Durability::Off,
            Some(other) => return Err(Error::invalid(format!("{DURABILITY} is `{other}`: set always, auto or off"))),
        };
        let exchange = ExchangeSettings { force_encode, durability, operator_metrics: false };
        let temporaries = Arc::new(Temporaries::of(settings)?);
        let directory = settings.get(CLIENT_DIRECTORY).map(PathBuf::from);
        Ok(Self { config, directory, exchange, pins: Pins::default(), temporaries })
    }
}
