//! QEMU's parameters and capabilities of migration: changed for one, and put back as they were.

use serde_json::{Map, Value, json};

use crate::qmp::client::{QmpClient, QmpError};

/// What was changed, as it was before.
#[derive(Debug, Default)]
pub(super) struct Settings {
    parameters: Map<String, Value>,
    capabilities: Vec<(String, bool)>,
}

impl Settings {
    /// Sets parameters that this QEMU has; those that it hasn't are left out.
    pub(super) fn set(&mut self, client: &mut QmpClient, parameters: &[(&str, u64)]) -> Result<(), QmpError> {
        let are = client.execute("query-migrate-parameters", &Value::Null)?;
        let mut wanted = Map::new();
        for &(name, value) in parameters {
            if let Some(was) = are.get(name) {
                self.parameters.entry(name).or_insert_with(|| was.clone());
                if *was != json!(value) {
                    wanted.insert(name.to_owned(), json!(value));
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        client
            .execute("migrate-set-parameters", &Value::Object(wanted))
            .map(drop)
    }

    /// Turns capabilities that this QEMU has on or off. Only before a migration starts.
    pub(super) fn turn(&mut self, client: &mut QmpClient, capabilities: &[(&str, bool)]) -> Result<(), QmpError> {
        let are = client.execute("query-migrate-capabilities", &Value::Null)?;
        let is = |name: &str| {
            let found = are.as_array()?.iter().find(|one| one["capability"] == name)?;
            found["state"].as_bool()
        };
        let mut wanted = Vec::new();
        for &(name, on) in capabilities {
            if let Some(was) = is(name).filter(|was| *was != on) {
                self.capabilities.push((name.to_owned(), was));
                wanted.push((name.to_owned(), on));
            }
        }
        send(client, &wanted)
    }

    /// Puts everything back. QEMU refuses capabilities as long as a migration is under way.
    pub(super) fn restore(self, client: &mut QmpClient) -> Result<(), QmpError> {
        let capabilities = send(client, &self.capabilities);
        if !self.parameters.is_empty() {
            client.execute("migrate-set-parameters", &Value::Object(self.parameters))?;
        }
        capabilities
    }
}

fn send(client: &mut QmpClient, capabilities: &[(String, bool)]) -> Result<(), QmpError> {
    if capabilities.is_empty() {
        return Ok(());
    }
    let list: Vec<Value> = capabilities
        .iter()
        .map(|(name, on)| json!({ "capability": name, "state": on }))
        .collect();
    client
        .execute("migrate-set-capabilities", &json!({ "capabilities": list }))
        .map(drop)
}
