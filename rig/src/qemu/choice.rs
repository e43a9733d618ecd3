//! The VMMs that settings name, looked at before anything runs: a QEMU's version decides which limiters it has.

use dirtyrig_limiter::law::LimiterKind;

use super::{ability::has_limiter, binary::Binary, error::QemuError, running::Running, version::Version};
use crate::scenario::{
    settings::{MemoryMib, Settings, VcpuCount},
    values::Ring,
    vmm::Vmm,
};

/// The QEMUs that settings name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    qemus: Vec<(Vmm, Version)>,
}

impl Choice {
    /// Looks at every VMM of `settings`, and fills in what only they know: the limiter, where none was given; of a
    /// QEMU that runs already its ring, its vCPUs and its memory.
    pub fn of(settings: &mut Settings) -> Result<Self, QemuError> {
        let mut qemus = Vec::new();
        for vmm in settings.vmm.clone() {
            let version = match &vmm {
                Vmm::Rig => continue,
                Vmm::Qemu { binary } => Binary::find(binary.as_deref())?.version,
                Vmm::Attach { socket } => {
                    let running = Running::find(socket)?;
                    let version = running.version;
                    fill_in(settings, running)?;
                    version
                }
            };
            qemus.push((vmm, version));
        }
        if settings.limiter.is_empty() {
            for law in qemus.iter().filter_map(|(_, version)| version.law()) {
                if !settings.limiter.contains(&law) {
                    settings.limiter.push(law);
                }
            }
        }
        for (_, version) in &qemus {
            let limiters = &settings.limiter;
            if let (Some(&asked), Some(own)) = (limiters.first(), version.law())
                && !limiters.iter().any(|&limiter| has_limiter(*version, limiter))
            {
                return Err(QemuError::OtherLimiter {
                    asked,
                    own,
                    name: format!("QEMU {version}"),
                });
            }
        }
        Ok(Self { qemus })
    }

    /// Of `combinations`, those whose VMM has their limiter.
    pub fn fitting(&self, combinations: Vec<Settings>) -> Vec<Settings> {
        combinations
            .into_iter()
            .filter(|settings| {
                let limiter = settings.limiter.first().copied().unwrap_or(LimiterKind::Qemu72);
                let mut qemus = self.qemus.iter().filter(|(vmm, _)| settings.vmm.contains(vmm));
                qemus.all(|(_, version)| has_limiter(*version, limiter))
            })
            .collect()
    }

    /// An error if a QEMU lacks one of the limiters: for a command that runs every one of them.
    pub fn has_all(&self, limiters: &[LimiterKind]) -> Result<(), QemuError> {
        for (_, version) in &self.qemus {
            let lacking = limiters.iter().find(|limiter| !has_limiter(*version, **limiter));
            if let (Some(&asked), Some(own)) = (lacking, version.law()) {
                return Err(QemuError::OtherLimiter {
                    asked,
                    own,
                    name: format!("QEMU {version}"),
                });
            }
        }
        Ok(())
    }

    /// What the reader should know: which limiters a QEMU does without.
    pub fn remarks(&self, settings: &Settings) -> Vec<String> {
        let remark = |(vmm, version): &(Vmm, Version)| {
            let other = |limiter: &&LimiterKind| !has_limiter(*version, **limiter);
            let without: Vec<&str> = settings
                .limiter
                .iter()
                .filter(other)
                .map(|limiter| limiter.name())
                .collect();
            (!without.is_empty()).then(|| {
                format!(
                    "QEMU {version} (`{vmm}`) has a law of its own, so its cells with {} are left out",
                    without.join(", ")
                )
            })
        };
        self.qemus.iter().filter_map(remark).collect()
    }
}

/// What a QEMU that runs already says of itself; what was given must agree with it.
fn fill_in(settings: &mut Settings, mut running: Running) -> Result<(), QemuError> {
    let unable = |what: String, remedy: &str| QemuError::Unable {
        what,
        remedy: remedy.to_owned(),
    };
    // Limits are given by index, and indices have gaps where vCPUs are plugged: there is room for the highest.
    let room = running.threads.keys().last().map_or(0, |highest| highest + 1);
    let room = VcpuCount::new(room as u64).map_err(|error| unable("that many vCPUs".to_owned(), &error.to_string()))?;
    if settings.vcpus.iter().any(|&given| given != room) {
        let indices: Vec<String> = running.threads.keys().map(ToString::to_string).collect();
        return Err(unable(
            "another number of vCPUs".to_owned(),
            &format!("its vCPUs are {}: leave `--vcpus` out", indices.join(", ")),
        ));
    }
    settings.vcpus = vec![room];
    if let Some(ring) = running.ring_entries().and_then(|entries| Ring::new(entries).ok()) {
        if settings.ring.iter().any(|&given| given != ring) {
            return Err(unable(
                "another ring".to_owned(),
                &format!("it runs with {ring}: leave `--ring` out"),
            ));
        }
        settings.ring = vec![ring];
    }
    if let Ok(memory) = MemoryMib::new(running.memory_mib()?) {
        settings.memory = Some(memory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice() -> (Choice, Settings) {
        let settings: Settings = toml::from_str(
            "vmm = ['rig', 'qemu', 'qemu:/old']\nlimiter = ['qemu-7.2', 'qemu-10', 'budget']\nring = [1024, 4096]",
        )
        .expect("valid settings");
        let qemus = vec![
            (settings.vmm[1].clone(), Version::new(10, 0, 2)),
            (settings.vmm[2].clone(), Version::new(7, 2, 22)),
        ];
        (Choice { qemus }, settings)
    }

    #[test]
    fn each_qemu_has_the_cells_of_its_own_law_and_the_rig_has_all() {
        let (choice, settings) = choice();
        let fitting = choice.fitting(settings.combinations());
        let of = |vmm: &Vmm| -> Vec<&str> {
            let own = fitting
                .iter()
                .filter(|settings| settings.vmm == [vmm.clone()] && settings.ring[0].0.entries() == 1024);
            own.map(|settings| settings.limiter[0].name()).collect()
        };
        assert_eq!(of(&settings.vmm[0]), ["qemu-7.2", "qemu-10", "budget"]);
        assert_eq!(of(&settings.vmm[1]), ["qemu-10"]);
        assert_eq!(of(&settings.vmm[2]), ["qemu-7.2"]);
        assert_eq!(
            choice.remarks(&settings)[1],
            "QEMU 7.2.22 (`qemu:/old`) has a law of its own, so its cells with qemu-10, budget are left out"
        );
    }

    #[test]
    fn without_a_qemu_nothing_changes() {
        let mut settings = Settings::default();
        let choice = Choice::of(&mut settings).expect("nothing to look at");
        assert_eq!((settings, choice), (Settings::default(), Choice::default()));
    }
}
