//! Two QEMUs with our guest, and the link between them.
//!
//! The link is a TCP connection that is made here, paced by the kernel (`SO_MAX_PACING_RATE`) and handed to the source: so
//! the last pass is paced too, which QEMU's own `max-bandwidth` leaves out. It can be slowed down or cut on the way.

use std::{
    fs::File,
    net::{Shutdown, TcpStream},
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    time::Duration,
};

use anyhow::Context as _;
use dirtyrig_guests::{
    PAGE_SIZE, Program, Region, VcpuBlock,
    boot::{BootVcpu, elf},
    image::{LowMemory, REGION_BASE},
};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
use serde_json::{Value, json};

use super::{bandwidth::Bandwidth, monitor::Monitor};
use crate::{
    qemu::{
        binary::Binary,
        process::{Launch, Qemu},
        target::tsc_hz,
    },
    qmp::client::QmpClient,
};

sockopt_impl!(
    /// Bytes per second.
    MaxPacingRate, Both, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, u64
);

/// The name under which QEMU is given its end of the link.
const LINK: &str = "dirtyrig-link";

/// Which guest, on which VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// The program of each vCPU.
    pub programs: Vec<Program>,
    /// Memory that the programs have together, in MiB.
    pub memory_mib: u64,
    /// Entries of each vCPU's dirty ring.
    pub ring_entries: u32,
    /// Where random sequences start.
    pub seed: u64,
}

impl Guest {
    fn image(&self) -> anyhow::Result<Vec<u8>> {
        let pages_each = (self.memory_mib << 20) / PAGE_SIZE / self.programs.len() as u64;
        let vcpus: Vec<BootVcpu> = (0_u64..)
            .zip(&self.programs)
            .map(|(vcpu, program)| BootVcpu {
                program: program.clone(),
                region: Region {
                    gpa: REGION_BASE + vcpu * pages_each * PAGE_SIZE,
                    pages: pages_each,
                },
                seed: self.seed.wrapping_add(vcpu),
            })
            .collect();
        elf(&vcpus, None, tsc_hz()?).context("can't lay out the guest")
    }

    /// Memory of the VM.
    pub fn total_mib(&self) -> u64 {
        self.memory_mib + (REGION_BASE >> 20)
    }
}

/// A source, whose guest runs, and a destination.
#[derive(Debug)]
pub struct Pair {
    /// Where the guest is.
    pub source: Qemu,
    /// Where it is to go.
    pub destination: Qemu,
    /// The destination's monitor.
    pub arrivals: QmpClient,
    link: Option<TcpStream>,
}

impl Pair {
    /// Starts both. It must be called by a thread that lives as long as they are to.
    pub fn start(binary: &Binary, guest: &Guest) -> anyhow::Result<Self> {
        let image = guest.image()?;
        let launch = Launch {
            image: &image,
            vcpus: guest.programs.len(),
            memory_mib: guest.total_mib(),
            ring_entries: guest.ring_entries,
        };
        let destination = Qemu::start_destination(binary, launch, "tcp:127.0.0.1:0")?;
        let arrivals = destination.connect()?;
        let source = Qemu::start(binary, launch)?;
        Ok(Self {
            source,
            destination,
            arrivals,
            link: None,
        })
    }

    /// Waits until the guest has gone through its memory some times, as one has that ran for long, or for [`SETTLES`].
    pub fn settle(&self, guest: &Guest) {
        let accesses = |vcpu| {
            let truth = self.source.truth(vcpu);
            truth.written + truth.read
        };
        let often = ROUNDS * (guest.memory_mib << 20) / PAGE_SIZE / guest.programs.len() as u64;
        let begun = std::time::Instant::now();
        while begun.elapsed() < SETTLES && (0..guest.programs.len()).any(|vcpu| accesses(vcpu) < often) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes the link and hands it to the source; returns its name as a migration's URI.
    pub fn connect(&mut self, monitor: &mut Monitor, bandwidth: Bandwidth) -> anyhow::Result<String> {
        let told = self.arrivals.execute("query-migrate", &Value::Null)?;
        let port = told["socket-address"][0]["port"]
            .as_str()
            .and_then(|port| port.parse().ok());
        let port: u16 = port.with_context(|| format!("the destination names no port it listens at: {told}"))?;
        let link = TcpStream::connect(("127.0.0.1", port)).context("can't connect to the destination")?;
        let link = self.link.insert(link);
        setsockopt(link, MaxPacingRate, &bandwidth.bytes_per_sec()).context("can't pace the link")?;
        monitor
            .client
            .execute_with("getfd", &json!({ "fdname": LINK }), link.as_fd())?;
        Ok(format!("fd:{LINK}"))
    }

    /// The port of this host at which the destination listens.
    pub fn port(&mut self) -> anyhow::Result<u16> {
        let told = self.arrivals.execute("query-migrate", &Value::Null)?;
        let port = told["socket-address"][0]["port"]
            .as_str()
            .and_then(|port| port.parse().ok());
        port.with_context(|| format!("the destination names no port it listens at: {told}"))
    }

    /// Paces the link anew.
    pub fn pace(&self, bandwidth: Bandwidth) -> anyhow::Result<()> {
        let link = self.link.as_ref().context("there is no link yet")?;
        setsockopt(link, MaxPacingRate, &bandwidth.bytes_per_sec()).context("can't pace the link")
    }

    /// Cuts the link.
    pub fn cut(&self) -> anyhow::Result<()> {
        let link = self.link.as_ref().context("there is no link yet")?;
        link.shutdown(Shutdown::Both).context("can't cut the link")
    }

    /// Stops the guest at the destination and compares both memories, page by page. Returns how many pages differ, but for
    /// those that the guest has written since it came: the value that its writes leave only grows.
    pub fn differences(&mut self) -> anyhow::Result<u64> {
        self.arrivals.execute("stop", &Value::Null)?;
        let open = |qemu: &Qemu| File::open(qemu.memory().path()).context("can't read the guest's memory");
        let (left, right) = (open(&self.source)?, open(&self.destination)?);
        let bytes = left.metadata()?.len();
        let blocks: Vec<u64> = (0..self.source.vcpus()).map(LowMemory::block_gpa).collect();
        let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut differences = 0;
        let mut at = 0;
        while at < bytes {
            let length = CHUNK.min((bytes - at) as usize);
            left.read_exact_at(&mut one[..length], at)?;
            right.read_exact_at(&mut other[..length], at)?;
            let pages = one[..length].chunks(PAGE).zip(other[..length].chunks(PAGE));
            for (page, (one, other)) in pages.enumerate() {
                let gpa = at + (page * PAGE) as u64;
                // A write at the destination leaves a later value than any at the source.
                let value = |page: &[u8]| u64::from_le_bytes(page[..8].try_into().expect("a page has eight bytes"));
                let is_own = || one[8..] == other[8..] && value(other) > value(one) && gpa >= REGION_BASE;
                if one != other && !blocks.contains(&gpa) && !is_own() {
                    differences += 1;
                }
            }
            at += length as u64;
        }
        Ok(differences)
    }

    /// Waits until the guest runs at the destination, for `patience` at most; tells whether it does.
    pub fn arrived(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let begun = std::time::Instant::now();
        loop {
            let status = self.arrivals.execute("query-status", &Value::Null)?;
            if status["running"].as_bool() == Some(true) {
                return Ok(true);
            }
            if begun.elapsed() > patience {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How often a guest goes through its memory before it is as it will be.
const ROUNDS: u64 = 8;
/// A guest that takes longer for that is as it is.
const SETTLES: Duration = Duration::from_secs(4);

const PAGE: usize = PAGE_SIZE as usize;
const CHUNK: usize = 1 << 20;
const _: () = assert!(size_of::<VcpuBlock>() == PAGE);
