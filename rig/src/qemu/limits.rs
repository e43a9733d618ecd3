//! The limits of a QEMU, through its monitor, on a thread of its own.
//!
//! QEMU answers a command that sets or cancels a limit only when every vCPU has left the guest. One that sleeps off a
//! throttle may take many seconds until then. Nobody who samples can wait for it: what was asked for counts from the
//! moment it was asked, and the thread, which owns the connection, carries it out in turn and in between asks for the
//! readings. It ends with the connection, or when [`OwnLimiter`] is dropped or ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    limit::{LimitInfo, Which},
    units::{MibPerSec, Quota},
};
use serde_json::{Value, json};

use super::{error::QemuError, running};
use crate::{
    engine::limits::{InForce, Limits, Whom},
    qmp::client::{QmpClient, QmpError},
};

/// How often the readings are asked for: as often as the engine takes a sample.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How often to ask which vCPUs there are: one that is plugged has a row within a second.
const ASK_VCPUS_EVERY: Duration = Duration::from_millis(500);

/// A limit that no vCPU reaches, in MiB/s: under it QEMU's limiter measures and never throttles.
const UNREACHED: u64 = 1 << 24;

/// How the pages of an unlimited vCPU are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// Only where a limit is in force, as in a QEMU left alone.
    WithLimits,
    /// By its rate measurement (`calc-dirty-rate` in the mode dirty-ring), for so many seconds, again and again until a
    /// limit is set.
    Measuring {
        /// From 1 to 60.
        seconds: u64,
    },
    /// All the time without a gap, by a limit that no vCPU reaches.
    Always,
}

/// The limiter of one QEMU, its own.
#[derive(Debug)]
pub struct OwnLimiter {
    shared: Arc<Mutex<Shared>>,
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Set(Which, Quota),
    Cancel(Which),
}

/// What both sides know; held for moments only.
#[derive(Debug)]
struct Shared {
    /// The vCPUs by `cpu-index`.
    vcpus: BTreeMap<usize, Asked>,
    /// What was asked for all of them, those to come included.
    of_all: Option<Quota>,
    /// The thread of each that is plugged, as QEMU said last.
    threads: BTreeMap<usize, u32>,
    failure: Option<QmpError>,
}

/// What was asked for a vCPU, and what QEMU last read of it.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    quota: Option<Quota>,
    current: MibPerSec,
}

impl OwnLimiter {
    /// Takes over the connection to a QEMU whose vCPUs have the indices `vcpus`. `restore` says whether limits are cancelled at the end:
    /// of a QEMU that goes on without us.
    pub fn start(client: QmpClient, vcpus: BTreeSet<usize>, logging: Logging, restore: bool) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            vcpus: vcpus.into_iter().map(|vcpu| (vcpu, Asked::default())).collect(),
            of_all: None,
            threads: BTreeMap::new(),
            failure: None,
        }));
        let (orders, received) = mpsc::channel();
        let mut worker = Worker {
            client,
            shared: Arc::clone(&shared),
            logging,
            logged_until: None,
            asked_vcpus: None,
            limited: false,
        };
        let work = move || {
            let outcome = worker
                .run(&received)
                .and_then(|()| if restore { worker.restore() } else { Ok(()) });
            if let Err(error) = outcome {
                lock(&worker.shared).failure.get_or_insert(error);
            }
        };
        let thread = thread::Builder::new()
            .name("qmp".into())
            .spawn(work)
            .expect("the system has room for one more thread");
        Self {
            shared,
            orders: Some(orders),
            thread: Some(thread),
        }
    }

    fn ask(&self, which: Which, quota: Option<Quota>, order: Order) -> Result<(), QmpError> {
        self.check()?;
        let mut shared = lock(&self.shared);
        if which == Which::All {
            shared.of_all = quota;
        }
        for (&vcpu, asked) in &mut shared.vcpus {
            if matches!(which, Which::All) || which == Which::One(vcpu) {
                if asked.quota.is_none() {
                    // What was read under an earlier limit says nothing of this one.
                    asked.current = MibPerSec::default();
                }
                asked.quota = quota;
            }
        }
        if let Some(orders) = &self.orders {
            // A thread that has ended has left its reason, which the next check brings.
            let _ = orders.send(order);
        }
        Ok(())
    }

    /// The thread of each vCPU that is plugged, as QEMU said last; those of an earlier time are not among them.
    pub fn threads(&self) -> BTreeMap<usize, u32> {
        lock(&self.shared).threads.clone()
    }

    /// What the thread failed on, once.
    fn check(&self) -> Result<(), QmpError> {
        lock(&self.shared).failure.take().map_or(Ok(()), Err)
    }

    /// Ends the thread, after every order was carried out.
    pub fn end(mut self) -> Result<(), QmpError> {
        self.join();
        self.check()
    }

    fn join(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// The command follows in turn; what is asked for counts from now on.
impl Limits for OwnLimiter {
    fn set(&self, whom: Whom, quota: Quota) -> anyhow::Result<()> {
        let Whom::Vcpus(which) = whom else {
            anyhow::bail!(
                "QEMU's own limiter can't hold one quota for the whole VM: limit its vCPUs, or give `--limiter budget-ebpf`"
            )
        };
        if let Which::One(vcpu) = which
            && !lock(&self.shared).vcpus.contains_key(&vcpu)
        {
            // QEMU takes a limit for any index that it has room for, and says nothing.
            return Err(QemuError::Unable {
                what: format!("a limit on vCPU {vcpu}, which isn't plugged,"),
                remedy: "limit one that is, or all".to_owned(),
            }
            .into());
        }
        Ok(self.ask(which, Some(quota), Order::Set(which, quota))?)
    }

    fn cancel(&self, whom: Whom) -> anyhow::Result<()> {
        match whom {
            Whom::Vcpus(which) => Ok(self.ask(which, None, Order::Cancel(which))?),
            Whom::Vm => Ok(()),
        }
    }

    fn set_burst(&self, _: Duration) -> anyhow::Result<()> {
        anyhow::bail!("QEMU's own limiter saves nothing up: give `--limiter budget-ebpf` to set a burst")
    }

    fn query(&self) -> anyhow::Result<InForce> {
        self.check()?;
        let shared = lock(&self.shared);
        let limited = shared.vcpus.iter().filter_map(|(&vcpu, asked)| {
            Some(LimitInfo {
                vcpu,
                quota: asked.quota?,
                current: asked.current,
            })
        });
        Ok(InForce {
            vcpus: limited.collect(),
            vm: None,
        })
    }
}

impl Drop for OwnLimiter {
    fn drop(&mut self) {
        self.join();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own.
struct Worker {
    client: QmpClient,
    shared: Arc<Mutex<Shared>>,
    logging: Logging,
    logged_until: Option<Instant>,
    asked_vcpus: Option<Instant>,
    /// Whether QEMU was told of any limit of ours.
    limited: bool,
}

impl Worker {
    fn run(&mut self, orders: &mpsc::Receiver<Order>) -> Result<(), QmpError> {
        if self.logging == Logging::Always {
            self.unreached(Which::All)?;
        }
        loop {
            self.keep_logging()?;
            self.look_for_vcpus()?;
            match orders.recv_timeout(ASK_EVERY) {
                Ok(order) => self.carry_out(&order)?,
                Err(mpsc::RecvTimeoutError::Timeout) => self.read()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn carry_out(&mut self, order: &Order) -> Result<(), QmpError> {
        match *order {
            Order::Set(which, quota) => self.set(which, whole(quota)),
            Order::Cancel(which) if self.logging == Logging::Always => self.unreached(which),
            Order::Cancel(which) => self.cancel(which),
        }
    }

    fn unreached(&mut self, which: Which) -> Result<(), QmpError> {
        self.set(which, UNREACHED)
    }

    fn set(&mut self, which: Which, rate: u64) -> Result<(), QmpError> {
        self.limited = true;
        let mut arguments = arguments(which);
        arguments["dirty-rate"] = rate.into();
        self.client.execute("set-vcpu-dirty-limit", &arguments).map(drop)
    }

    fn cancel(&mut self, which: Which) -> Result<(), QmpError> {
        self.client
            .execute("cancel-vcpu-dirty-limit", &arguments(which))
            .map(drop)
    }

    /// Has unlimited vCPUs logged while nothing is limited.
    fn keep_logging(&mut self) -> Result<(), QmpError> {
        let Logging::Measuring { seconds } = self.logging else {
            return Ok(());
        };
        let limited = lock(&self.shared).vcpus.values().any(|asked| asked.quota.is_some());
        if limited || self.logged_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let arguments = json!({ "calc-time": seconds, "mode": "dirty-ring" });
        let logged = match self.client.execute("calc-dirty-rate", &arguments) {
            Ok(_) => Duration::from_secs(seconds),
            // A measurement is under way, somebody else's or the last of ours, whose clock is not quite this one.
            Err(QmpError::Refused { .. }) => ASK_EVERY,
            Err(error) => return Err(error),
        };
        self.logged_until = Some(Instant::now() + logged);
        Ok(())
    }

    /// A vCPU that was plugged meanwhile is under the limit that was set for all: QEMU's holds for every index that it has room for.
    fn look_for_vcpus(&mut self) -> Result<(), QmpError> {
        if self.asked_vcpus.is_some_and(|asked| asked.elapsed() < ASK_VCPUS_EVERY) {
            return Ok(());
        }
        let threads = running::threads(&mut self.client)?;
        self.asked_vcpus = Some(Instant::now());
        let mut shared = lock(&self.shared);
        let of_all = Asked {
            quota: shared.of_all,
            ..Asked::default()
        };
        for &vcpu in threads.keys() {
            shared.vcpus.entry(vcpu).or_insert(of_all);
        }
        shared.threads = threads;
        Ok(())
    }

    fn read(&mut self) -> Result<(), QmpError> {
        let limits = self.client.execute("query-vcpu-dirty-limit", &Value::Null)?;
        let mut shared = lock(&self.shared);
        for limit in limits.as_array().into_iter().flatten() {
            let vcpu = limit["cpu-index"]
                .as_u64()
                .and_then(|index| usize::try_from(index).ok());
            let current = limit["current-rate"].as_u64();
            if let (Some(asked), Some(current)) = (vcpu.and_then(|vcpu| shared.vcpus.get_mut(&vcpu)), current) {
                asked.current = MibPerSec(current as f64);
            }
        }
        Ok(())
    }

    /// Leaves QEMU as it was found.
    fn restore(&mut self) -> Result<(), QmpError> {
        if self.limited { self.cancel(Which::All) } else { Ok(()) }
    }
}

fn arguments(which: Which) -> Value {
    match which {
        Which::All => json!({}),
        Which::One(vcpu) => json!({ "cpu-index": vcpu }),
    }
}

/// The whole MiB/s that QEMU takes: the nearest, and at least 1 because 0 cancels; what our own laws of QEMU do too.
fn whole(quota: Quota) -> u64 {
    (quota.mib_per_sec().round() as u64).max(1)
}
