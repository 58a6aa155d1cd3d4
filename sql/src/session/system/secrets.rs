//! `system.secrets`: the secrets that the coordinator knows, by name. Never what they are.

use tidemill_core::Millis;
use tidemill_core::record::State;
use tidemill_engine::secrets::Secrets;

use super::Columns;

pub(super) fn rows(_: &State, _: Millis) -> Columns {
    let secrets = Secrets::installed();
    Columns::default()
        .text("name", secrets.iter().map(|secret| Some(secret.name.clone())))
        .text("type", secrets.iter().map(|secret| Some(secret.of.name())))
        .text("scope", secrets.iter().map(|secret| secret.opens().map(str::to_owned)))
}
