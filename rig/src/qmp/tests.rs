//! The protocol, with a VM that only remembers what it was told: what a client may say, and what becomes of it.

mod abuse;
mod client;
mod human;
mod requests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dirtyrig_limiter::{
    limit::{LimitError, LimitInfo, Which},
    units::{MibPerSec, Pages, Quota},
};
use serde_json::{Value, json};

use crate::engine::limits::{InForce, Limits, Whom};

use super::{framing::Framer, session::Session, *};

/// A VM of two vCPUs.
#[derive(Default)]
struct Remembering {
    quotas: Mutex<[Option<Quota>; 2]>,
    /// Grows each time it is asked for. Relaxed: a lone count.
    dirtied: AtomicU64,
    /// Relaxed: a lone value.
    burst_ms: AtomicU64,
    /// Relaxed: a lone flag.
    quit: AtomicBool,
}

impl Remembering {
    fn change(&self, whom: Whom, quota: Option<Quota>) -> anyhow::Result<()> {
        let Whom::Vcpus(which) = whom else {
            anyhow::bail!("no monitor limits the VM as a whole")
        };
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        match which {
            Which::All => quotas.fill(quota),
            Which::One(vcpu) => {
                let max = quotas.len();
                *quotas.get_mut(vcpu).ok_or(LimitError::BadIndex { vcpu, max })? = quota;
            }
        }
        Ok(())
    }
}

impl Limits for Remembering {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        self.change(whom, Some(quota))
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        self.change(whom, None)
    }

    fn set_burst(&self, burst: Duration) -> anyhow::Result<()> {
        self.burst_ms.store(burst.as_millis() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn query(&self) -> anyhow::Result<InForce> {
        let quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |(vcpu, quota): (usize, &Option<Quota>)| {
            quota.map(|quota| LimitInfo {
                vcpu,
                quota,
                current: MibPerSec(415.7),
            })
        };
        let vcpus = quotas.iter().enumerate().filter_map(row).collect();
        Ok(InForce { vcpus, vm: None })
    }
}

impl LimitedVm for Remembering {
    fn vcpus(&self) -> Vec<VcpuInfo> {
        [(0, None), (1, Some(71))]
            .map(|(index, thread)| VcpuInfo { index, thread })
            .to_vec()
    }

    fn is_running(&self) -> bool {
        true
    }

    fn limits(&self) -> anyhow::Result<Box<dyn Limits + '_>> {
        Ok(Box::new(self))
    }

    fn dirtied(&self) -> anyhow::Result<Vec<Pages>> {
        let pages = self.dirtied.fetch_add(1 << 20, Ordering::Relaxed);
        Ok(vec![Pages(pages), Pages(0)])
    }

    fn quit(&self) {
        self.quit.store(true, Ordering::Relaxed);
    }
}

/// A session on a VM that remembers.
struct Client {
    vm: Arc<Remembering>,
    session: Session,
}

impl Client {
    /// Before negotiation.
    fn fresh() -> Self {
        let vm = Arc::new(Remembering::default());
        let session = Session::new(Arc::new(Monitor::new(vm.clone())));
        Self { vm, session }
    }

    /// After it.
    fn new() -> Self {
        let client = Self::fresh();
        assert_eq!(
            client.say(r#"{"execute": "qmp_capabilities"}"#),
            json!({ "return": {} })
        );
        client
    }

    /// The one reply to one line.
    fn say(&self, line: &str) -> Value {
        let frames = Framer::new().push(format!("{line}\n").as_bytes());
        let mut replies = frames.into_iter().map(|frame| self.session.answer(frame));
        let reply = replies.next().expect("a line is answered");
        assert_eq!(replies.next(), None, "{line}: once");
        serde_json::to_value(reply).expect("JSON")
    }

    /// What a command returns.
    fn run(&self, command: &str, arguments: &Value) -> Value {
        let reply = self.say(&json!({ "execute": command, "arguments": arguments }).to_string());
        reply
            .get("return")
            .unwrap_or_else(|| panic!("{command} {arguments}: {reply}"))
            .clone()
    }

    /// The class and the words of the error that a line ends in.
    fn refused(&self, line: &str) -> (String, String) {
        let reply = self.say(line);
        let part = |name: &str| reply["error"][name].as_str().expect(line).to_owned();
        (part("class"), part("desc"))
    }

    fn human(&self, line: &str) -> String {
        hmp::run(self.session.monitor(), line).text
    }
}
