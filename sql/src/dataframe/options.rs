//! The engine's own settings among DataFusion's, so that `SET tidemill.durability = 'off'` works in a session.

use std::any::Any;
use std::collections::BTreeMap;

use datafusion::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::error::Result;
use tidemill_engine::error::to_datafusion;

use crate::session::ClientSettings;

/// Settings that begin with `tidemill.`, by the rest of their names.
#[derive(Debug, Clone, Default)]
pub(super) struct TidemillOptions(BTreeMap<String, String>);

impl TidemillOptions {
    /// Those among a client's settings.
    pub(super) fn of(settings: &BTreeMap<String, String>) -> Self {
        let ours = settings.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(Self::PREFIX)?.strip_prefix('.')?;
            Some((key.to_owned(), value.clone()))
        });
        Self(ours.collect())
    }
}

impl ConfigExtension for TidemillOptions {
    const PREFIX: &'static str = "tidemill";
}

impl ExtensionOptions for TidemillOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let name = format!("{}.{key}", Self::PREFIX);
        ClientSettings::default().set(&name, value).map_err(to_datafusion)?;
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |(key, value): (&String, &String)| ConfigEntry {
            key: format!("{}.{key}", Self::PREFIX),
            value: Some(value.clone()),
            description: "a setting of Tidemill's",
        };
        self.0.iter().map(entry).collect()
    }
}
