//! Our QMP server beside QEMU's own, which libvirt asks: a domain that both speak for.
//!
//! libvirt talks to nobody's monitor but that of a QEMU that it has started, so its own traffic goes to QEMU. What
//! `virsh qemu-monitor-command` passes on is held against what our server says of the same domain.

use std::{collections::BTreeSet, sync::Arc};

use dirtyrig_probes::identity::find_vm;
use dirtyrig_rig::{
    engine::interrupt::Interrupt,
    outside::{Limiter, Remote},
    qmp::{Monitor, Server, client::QmpClient, client::QmpError},
};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::{
    DEPTH,
    libvirt::{Libvirt, NAME, stopped_again},
};

/// What QEMU replies, by way of libvirt: `return` or `error`.
fn qemu(libvirt: &Libvirt, command: &str, arguments: &Value) -> Result<Value, Failed> {
    let request = json!({ "execute": command, "arguments": arguments }).to_string();
    let reply = libvirt.virsh(&["qemu-monitor-command", NAME, &request])?;
    let reply: Value = serde_json::from_str(&reply)?;
    // libvirt's traffic has ids, which come back.
    assert!(
        reply["id"].as_str().is_some_and(|id| id.starts_with("libvirt-")),
        "{reply}"
    );
    Ok(reply)
}

/// Whether every key of `ours` is in `theirs`, with a value of the same type.
fn is_part(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => ours
            .iter()
            .all(|(key, value)| theirs.get(key).is_some_and(|their| is_part(value, their))),
        (Value::Array(ours), Value::Array(theirs)) => match (ours.first(), theirs.first()) {
            (Some(ours), Some(theirs)) => is_part(ours, theirs),
            (ours, _) => ours.is_none(),
        },
        (ours, theirs) => std::mem::discriminant(ours) == std::mem::discriminant(theirs),
    }
}

fn names(commands: &Value) -> BTreeSet<&str> {
    let commands = commands.as_array().into_iter().flatten();
    let names = commands.filter_map(|command| command["name"].as_str());
    // What begins so is an extension.
    names.filter(|name| !name.starts_with("x-")).collect()
}

fn threads(cpus: &Value) -> BTreeSet<(u64, u64)> {
    let cpus = cpus.as_array().into_iter().flatten();
    cpus.filter_map(|cpu| Some((cpu["cpu-index"].as_u64()?, cpu["thread-id"].as_u64()?)))
        .collect()
}

pub(super) fn answers_alike() -> Result<(), Failed> {
    let libvirt = Libvirt::start()?;
    libvirt.create()?;
    let vm = find_vm(NAME)?;
    libvirt.log_for_a_minute()?;
    let limiter = Arc::new(Limiter::attach(vm.pid, DEPTH)?);
    let remote = Arc::new(Remote::new(Arc::clone(&limiter), Interrupt::default()));
    let socket = libvirt.at("ours.sock");
    let server = Server::start(Server::listen(&socket)?, Arc::new(Monitor::new(remote)), |text| {
        eprintln!("{text}");
    })?;
    let mut ours = QmpClient::connect(&socket)?;

    // Every command of ours is one of QEMU's, and every answer a part of QEMU's.
    let nothing = json!({});
    for command in ["query-commands", "query-version", "query-status", "query-cpus-fast"] {
        let (own, theirs) = (ours.execute(command, &nothing)?, qemu(&libvirt, command, &nothing)?);
        assert!(is_part(&own, &theirs["return"]), "{command}: {own} beside {theirs}");
        assert!(names(&own).is_subset(&names(&theirs["return"])), "{own}");
        assert_eq!(threads(&own), threads(&theirs["return"]), "{command}");
    }
    let limit = json!({ "cpu-index": 3, "dirty-rate": 1 });
    assert_eq!(ours.execute("set-vcpu-dirty-limit", &limit)?, json!({}));
    let own = ours.execute("query-vcpu-dirty-limit", &nothing)?;
    assert_eq!(
        (&own[0]["cpu-index"], &own[0]["limit-rate"]),
        (&json!(3), &json!(1)),
        "{own}"
    );
    let all = json!({ "dirty-rate": 1 });
    ours.execute("set-vcpu-dirty-limit", &all)?;
    stopped_again(&limiter);
    // QEMU has no limit of its own meanwhile, and goes on answering libvirt.
    assert_eq!(qemu(&libvirt, "query-vcpu-dirty-limit", &nothing)?["return"], json!([]));
    assert_eq!(libvirt.virsh(&["domstate", NAME])?, "running");
    // The same are refused.
    for (command, arguments) in [
        ("nonsense", &nothing),
        ("set-vcpu-dirty-limit", &nothing),
        ("set-vcpu-dirty-limit", &json!({ "cpu-index": 77, "dirty-rate": 1 })),
        ("query-status", &json!({ "surplus": 1 })),
    ] {
        let theirs = qemu(&libvirt, command, arguments)?;
        let own = ours.execute(command, arguments);
        assert!(
            matches!(own, Err(QmpError::Refused { .. })) && theirs["error"].is_object(),
            "{command} {arguments}: {own:?} beside {theirs}"
        );
    }
    // What there was of attaching to a QEMU that others started is gone from libvirt.
    let attached = libvirt.virsh(&["qemu-attach", &vm.pid.to_string()]);
    let refused = attached
        .expect_err("it attaches to a monitor of ours, so let it")
        .message()
        .unwrap_or_default()
        .to_owned();
    assert!(
        refused.contains("not supported by the connection driver") || refused.contains("unknown command"),
        "{refused}"
    );
    server.end(None);
    Ok(())
}
