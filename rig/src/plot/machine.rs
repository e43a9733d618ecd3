//! The machine of a recording in one line.

use serde_json::{Map, Value};

/// What a reader must know to judge a figure: processor, CPUs, kernel, KVM module, and whether it is a guest itself. Facts
/// that the manifest lacks are left out.
pub fn machine_line(facts: &Map<String, Value>) -> String {
    let fact = |section: &str, name: &str| facts.get(section)?.get(name);
    let text = |section, name| fact(section, name).and_then(Value::as_str);
    let parts = [
        text("cpu", "model_name").map(shortened),
        fact("cpu", "online")
            .and_then(Value::as_u64)
            .map(|cpus| format!("{cpus} CPUs")),
        text("kernel", "release").map(|release| format!("Linux {release}")),
        text("kvm", "module").map(str::to_owned),
        text("cpu", "hypervisor").map(|hypervisor| format!("guest of {hypervisor}")),
    ];
    let mut known: Vec<String> = parts.into_iter().flatten().collect();
    if let Some(machines) = facts.get("machines").and_then(Value::as_u64) {
        // Put together from several: the facts are those that all of them share.
        known.insert(0, format!("{machines} machines"));
    }
    if known.is_empty() {
        "machine not recorded".to_owned()
    } else {
        known.join(", ")
    }
}

/// A processor's name without the marks of its maker's lawyers and its nominal clock.
fn shortened(name: &str) -> String {
    let name = name.split('@').next().unwrap_or(name);
    let plain = ["(R)", "(TM)", "(tm)", "CPU", "Processor"]
        .iter()
        .fold(name.to_owned(), |name, noise| name.replace(noise, " "));
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(facts: &Value) -> String {
        machine_line(facts.as_object().expect("an object"))
    }

    #[test]
    fn names_what_is_known() {
        let facts = json!({
            "cpu": { "model_name": "Intel(R) Xeon(R) CPU @ 2.70GHz", "online": 2, "hypervisor": "KVM" },
            "kernel": { "release": "6.18.5" },
            "kvm": { "module": "kvm_pvm" },
        });
        assert_eq!(line(&facts), "Intel Xeon, 2 CPUs, Linux 6.18.5, kvm_pvm, guest of KVM");
    }

    #[test]
    fn several_machines_are_named_by_what_they_share() {
        let facts = json!({ "machines": 3, "cpu": { "online": 4 }, "kernel": {} });
        assert_eq!(line(&facts), "3 machines, 4 CPUs");
    }

    #[test]
    fn facts_that_are_missing_or_null_are_left_out() {
        assert_eq!(line(&json!({ "cpu": { "online": 4, "hypervisor": null } })), "4 CPUs");
        assert_eq!(line(&json!({})), "machine not recorded");
    }
}
