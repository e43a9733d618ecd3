//! What the probes can and cannot see here, in words.

use std::fmt;

use crate::{AttachKind, KvmEvent};

/// How one event fares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStatus {
    /// The event.
    pub event: KvmEvent,
    /// How it is attached, or why not.
    pub attached: Result<AttachKind, String>,
    /// How often it fired for the watched vCPUs.
    pub fired: u64,
}

/// What could not be recorded. Counts themselves are never lost but where a map was full, which is counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Stall records for which the buffer had no room; their lengths are in the histograms all the same.
    pub stalls: u64,
    /// Push records for which the buffer had no room; they are counted in `pushed_pages` all the same.
    pub pushes: u64,
    /// Events of threads beyond those that can be followed.
    pub threads: u64,
    /// Exits for a reason beyond those that can be told apart.
    pub exits: u64,
    /// Stalls missing from the histograms.
    pub histograms: u64,
    /// Rings whose resets are not counted.
    pub rings: u64,
    /// vCPUs that filled their ring and were gone before it was known which ring that was.
    pub vcpus: u64,
}

impl Lost {
    /// Whether anything was lost.
    pub fn any(&self) -> bool {
        self.total() > 0
    }

    /// All that was lost, whatever it was.
    pub fn total(&self) -> u64 {
        self.stalls + self.pushes + self.threads + self.exits + self.histograms + self.rings + self.vcpus
    }
}

/// What the kernel shows here. What it doesn't is unknown: a count of it means nothing, however much it says 0.
// Each stands for events of its own, any of which a kernel may lack.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sees {
    /// Which pages are dirtied.
    pub pages: bool,
    /// Which entries are reset.
    pub resets: bool,
    /// When `KVM_RUN` returns, and why.
    pub returns: bool,
    /// How long a vCPU is in `KVM_RUN`.
    pub runs: bool,
    /// When a stall ends.
    pub stall_ends: bool,
    /// Exits from guest mode: the event is attached and does fire.
    pub hardware_exits: bool,
}

impl Sees {
    /// What either of two shows.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            pages: self.pages || other.pages,
            resets: self.resets || other.resets,
            returns: self.returns || other.returns,
            runs: self.runs || other.runs,
            stall_ends: self.stall_ends || other.stall_ends,
            hardware_exits: self.hardware_exits || other.hardware_exits,
        }
    }
}

/// Everything a user must know to trust the figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Event by event.
    pub events: Vec<EventStatus>,
    /// What was lost.
    pub lost: Lost,
    /// What follows from that, in sentences: what cannot be shown, what stands in for it, and the remedy.
    pub notes: Vec<String>,
}

impl Status {
    /// `blind` is what no page source sees although it is needed.
    pub(crate) fn new(events: Vec<EventStatus>, lost: Lost, blind: Vec<String>) -> Self {
        let notes = notes(&events, &lost, blind);
        Self { events, lost, notes }
    }

    /// What the kernel shows here.
    pub fn sees(&self) -> Sees {
        let attached = |event| self.event(event).is_some_and(|event| event.attached.is_ok());
        let fires = |event| self.event(event).is_some_and(|event| event.fired > 0);
        let returns = attached(KvmEvent::UserspaceExit);
        Sees {
            pages: attached(KvmEvent::RingPush),
            resets: attached(KvmEvent::RingReset),
            returns,
            runs: returns && attached(KvmEvent::Run),
            stall_ends: returns && (attached(KvmEvent::Run) || fires(KvmEvent::Entry)),
            hardware_exits: fires(KvmEvent::Exit),
        }
    }

    /// How `event` fares.
    pub fn event(&self, event: KvmEvent) -> Option<&EventStatus> {
        self.events.iter().find(|status| status.event == event)
    }
}

fn notes(events: &[EventStatus], lost: &Lost, blind: Vec<String>) -> Vec<String> {
    let is_blind = !blind.is_empty();
    let mut notes = blind;
    let fired = |event| {
        events
            .iter()
            .find(|status| status.event == event)
            .map_or(0, |status| status.fired)
    };
    let attached = |event| {
        events
            .iter()
            .any(|status| status.event == event && status.attached.is_ok())
    };
    for status in events {
        if let Err(why) = &status.attached {
            notes.push(format!(
                "{} is not attached, so {}: {why}",
                status.event,
                consequence(status.event)
            ));
        }
    }
    let returned = fired(KvmEvent::UserspaceExit);
    for event in [KvmEvent::Entry, KvmEvent::Exit] {
        // Whoever returned from KVM_RUN had entered the guest and left it.
        if attached(event) && returned > 0 && fired(event) == 0 {
            notes.push(format!(
                "{event} never fired although KVM_RUN returned {returned} times: this host's KVM does not report it \
                 (nested kvm-pvm does not), so {}",
                consequence(event)
            ));
        }
    }
    let everything: u64 = events.iter().map(|status| status.fired).sum();
    if everything == 0 {
        notes.push("no event has fired yet: no watched vCPU left KVM_RUN or dirtied a page".into());
    } else if attached(KvmEvent::RingPush) && fired(KvmEvent::RingPush) == 0 && !is_blind {
        notes.push(
            "no page was logged: the VM's dirty logging is off (it is on during a migration, with a dirty limit set, or under \
             `calc-dirty-rate` in the mode dirty-ring or dirty-bitmap)"
                .into(),
        );
    }
    let mut note_loss = |count: u64, what: &str| {
        if count > 0 {
            notes.push(format!("lost {count} {what}"));
        }
    };
    note_loss(lost.stalls, "stall records: drain more often, or give a larger buffer");
    note_loss(lost.pushes, "push records: drain more often, or give a larger buffer");
    note_loss(
        lost.threads,
        "events of threads beyond those that can be followed at once: observe one process",
    );
    note_loss(
        lost.exits,
        "exits by reason: more reasons than can be told apart at once: observe one process",
    );
    note_loss(lost.histograms, "stalls from the histograms: observe one process");
    note_loss(lost.rings, "rings, whose resets are not counted: observe one process");
    if lost.vcpus > 0 {
        notes.push(format!(
            "lost the pages of {} vCPUs, which came and went between two drains: drain more often",
            lost.vcpus
        ));
    }
    notes
}

/// What the lack of an event means.
fn consequence(event: KvmEvent) -> &'static str {
    match event {
        KvmEvent::RingPush => "pages dirtied are not counted",
        KvmEvent::RingReset => "entries reset are not counted",
        KvmEvent::RingExit => "vCPUs are told by their descriptors or the names of their threads",
        KvmEvent::UserspaceExit => "ring-full exits, stalls and exits to the VMM are not seen",
        KvmEvent::Run => "stalls end where kvm_entry fires only, and time in KVM_RUN is not known",
        KvmEvent::Entry => "stalls are taken to end with the KVM_RUN system call, a few microseconds early",
        KvmEvent::Exit => "exits by hardware reason are not known; those to the VMM are",
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for EventStatus { event, attached, fired } in &self.events {
            match attached {
                Ok(kind) => writeln!(f, "{event:<20} {kind}, fired {fired} times", event = event.to_string())?,
                Err(_) => writeln!(f, "{event:<20} not attached", event = event.to_string())?,
            }
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(fired: [u64; 3]) -> Status {
        let events = [KvmEvent::UserspaceExit, KvmEvent::RingPush, KvmEvent::Exit];
        let events = events.into_iter().zip(fired).map(|(event, fired)| EventStatus {
            event,
            attached: Ok(AttachKind::Tracepoint),
            fired,
        });
        Status::new(events.collect(), Lost::default(), Vec::new())
    }

    #[test]
    fn an_event_that_should_have_fired_is_named() {
        let status = status([10, 5, 0]);
        assert_eq!(status.notes.len(), 1, "{status}");
        assert!(
            status.notes[0].starts_with("kvm_exit never fired although KVM_RUN returned 10 times"),
            "{status}"
        );
    }

    #[test]
    fn what_is_quiet_for_a_reason_is_told_apart_from_what_is_blind() {
        assert!(status([0, 0, 0]).notes[0].starts_with("no event has fired yet"));
        assert!(status([10, 0, 7]).notes[0].starts_with("no page was logged"));
        assert!(status([10, 5, 7]).notes.is_empty());
    }

    #[test]
    fn a_missing_event_and_a_loss_are_said_with_their_remedy() {
        let missing = EventStatus {
            event: KvmEvent::RingReset,
            attached: Err("tracepoint: no".into()),
            fired: 0,
        };
        let told = Status::new(
            vec![missing],
            Lost {
                pushes: 3,
                ..Lost::default()
            },
            Vec::new(),
        )
        .to_string();
        assert!(
            told.contains("kvm_dirty_ring_reset is not attached, so entries reset are not counted"),
            "{told}"
        );
        assert!(told.contains("lost 3 push records: drain more often"), "{told}");
    }
}
