use super::*;
use crate::engine::{
    facts::facts,
    simulated::{SimulatedClock, SimulatedTarget},
};

#[derive(Default)]
struct Kept {
    samples: Vec<Sample>,
    stalls: Vec<(Range<Duration>, usize)>,
    changed: Vec<Event>,
}

impl Sink for Kept {
    fn samples(&mut self, rows: &[Sample]) -> anyhow::Result<()> {
        self.samples.extend_from_slice(rows);
        Ok(())
    }

    fn stalls(&mut self, _: u32, interval: &Range<Duration>, stalls: &[Stall]) -> anyhow::Result<()> {
        self.stalls.push((interval.clone(), stalls.len()));
        Ok(())
    }

    fn kernel_stalls(&mut self, _: u32, _: &Range<Duration>, _: &[KernelStall]) -> anyhow::Result<()> {
        unreachable!("nothing probes a simulated target")
    }

    fn exits(&mut self, _: &[ExitRow]) -> anyhow::Result<()> {
        unreachable!("nothing probes a simulated target")
    }
}

#[derive(Default)]
struct Changes(Vec<Event>);

impl Watch for Changes {
    fn sampled(&mut self, _: &[Sample]) {}

    fn changed(&mut self, event: Event) {
        self.0.push(event);
    }
}

fn scenario(text: &str, end: End) -> Scenario {
    Scenario::new(&toml::from_str(text).expect("valid settings"), 1, end).expect("a valid scenario")
}

/// Runs `scenario` on a target whose vCPUs write 200 MiB/s and can't be held below `floor`.
fn run(
    scenario: &Scenario,
    floor: f64,
    clock: &SimulatedClock,
) -> (anyhow::Result<CellResult>, Kept, Vec<(Duration, String)>) {
    let mut target = SimulatedTarget::new(clock, scenario.vm.vcpus, 200.0, floor);
    let commands = target.commands.clone();
    let (mut kept, mut changes) = (Kept::default(), Changes::default());
    let facts = facts(7, 0, &target, scenario);
    let result = run_cell(&mut target, &facts, scenario, &mut kept, &mut changes, clock);
    kept.changed = changes.0;
    let commands = commands.borrow().clone();
    (result, kept, commands)
}

fn is_near(rate: Option<f64>, expected: f64) -> bool {
    rate.is_some_and(|rate| (rate - expected).abs() < 0.1)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn it_samples_ten_times_a_second_from_the_warm_up_to_the_end() {
    let scenario = scenario("quota = 50\nwarm-up = '1s'\nduration = '3s'", End::AtDuration);
    let clock = SimulatedClock::default();
    let (result, kept, commands) = run(&scenario, 0.0, &clock);
    let result = result.expect("it runs");
    assert_eq!(clock.elapsed(), 4 * SECOND);
    assert_eq!(kept.samples.len(), 40);
    assert_eq!(result.samples, kept.samples);
    assert!(kept.samples.iter().all(|row| row.cell == 7));
    let times: Vec<i64> = kept
        .samples
        .iter()
        .map(|row| (row.t_s * 1000.0).round() as i64)
        .collect();
    assert_eq!(times, (-9..=30).map(|tenth| tenth * 100).collect::<Vec<_>>());
    assert!(is_near(result.unlimited_mib_s[0], 200.0));
    assert_eq!(commands, [(SECOND, "set 50 All".to_owned())]);
    assert!(kept.samples[..10].iter().all(|row| row.quota_mib_s.is_none()));
    assert!(
        kept.samples[10..]
            .iter()
            .all(|row| row.quota_mib_s == Some(50.0) && is_near(row.guest_mib_s, 50.0))
    );
}

#[test]
fn the_script_is_followed_to_the_millisecond() {
    let text = "vcpus = 2\nquota = '50+none'\nwarm-up = '1s'\nduration = '5s'\n\
                at = ['1s250ms set 100 all', '2s cancel 0', '3s unplug 1', '4s plug 1']";
    let scenario = scenario(text, End::AtDuration);
    let (result, kept, commands) = run(&scenario, 0.0, &SimulatedClock::default());
    result.expect("it runs");
    let millis = |ms| SECOND + Duration::from_millis(ms);
    let expected = [
        (millis(0), "set 50 One(0)"),
        (millis(1250), "set 100 All"),
        (millis(2000), "cancel One(0)"),
        (millis(3000), "unplug 1"),
        (millis(4000), "plug 1"),
    ];
    let commands: Vec<_> = commands.iter().map(|(at, words)| (*at, words.as_str())).collect();
    assert_eq!(commands, expected);
    assert_eq!(kept.changed, scenario.script);
}

#[test]
fn a_cell_of_a_sweep_ends_when_it_is_measured() {
    let scenario = scenario("quota = 50\nring = 4096\nwarm-up = '1s'", End::WhenMeasured);
    let clock = SimulatedClock::default();
    let (result, _, _) = run(&scenario, 0.0, &clock);
    result.expect("it runs");
    let took = clock.elapsed().saturating_sub(SECOND);
    assert!(took >= 8 * SECOND, "eight bins of a period each: {took:?}");
    assert!(took < scenario.duration, "{took:?} of {:?}", scenario.duration);
}

#[test]
fn a_change_to_come_keeps_a_cell_from_ending() {
    let scenario = scenario(
        "quota = 50\nwarm-up = '1s'\nat = ['20s set 100 all']",
        End::WhenMeasured,
    );
    let clock = SimulatedClock::default();
    let (result, ..) = run(&scenario, 0.0, &clock);
    let last = result.expect("it runs").samples.pop().expect("samples");
    assert!(
        last.t_s >= 28.0 && last.quota_mib_s == Some(100.0),
        "measured after the change, until {}",
        last.t_s
    );
}

#[test]
fn stalls_are_logged_by_the_second_and_those_of_the_warm_up_dropped() {
    let scenario = scenario("quota = 50\nwarm-up = '1s'\nduration = '2500ms'", End::AtDuration);
    let (result, kept, _) = run(&scenario, 0.0, &SimulatedClock::default());
    let ends: Vec<_> = kept.stalls.iter().map(|(interval, _)| interval.end).collect();
    assert_eq!(ends, [SECOND, 2 * SECOND, Duration::from_millis(2500)]);
    assert!(kept.stalls.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
    let stalls = result.expect("it runs").stalls;
    assert_eq!(
        stalls.iter().map(|stall| stall.at).collect::<Vec<_>>(),
        ends,
        "on the cell's clock"
    );
}

#[test]
fn an_interrupt_ends_it_wherever_it_waits() {
    let scenario = scenario(
        "quota = 50\nwarm-up = '1s'\nat = ['2s250ms set 100 all']",
        End::AtDuration,
    );
    for ms in [0, 500, 999, 1000, 1700, 3249] {
        let clock = SimulatedClock::interrupted_at(Duration::from_millis(ms));
        let error = run(&scenario, 0.0, &clock).0.expect_err("it was interrupted");
        assert!(error.is::<Interrupted>(), "{ms} ms: {error}");
        assert_eq!(clock.elapsed(), Duration::from_millis(ms), "at once");
    }
}

#[test]
fn a_cell_that_ends_when_told_to_is_whole_then() {
    let scenario = scenario("quota = 50\nwarm-up = '1s'\nat = ['1h set 20 all']", End::WhenTold);
    let clock = SimulatedClock::interrupted_at(Duration::from_millis(3450));
    let (result, kept, _) = run(&scenario, 0.0, &clock);
    let result = result.expect("it was told to end, not interrupted");
    assert_eq!(result.samples, kept.samples);
    let last = kept.samples.last().expect("samples");
    assert!((last.t_s - 2.45).abs() < 1e-6, "the last at the end, not {}", last.t_s);
    let covered = kept.stalls.last().expect("stalls").0.end;
    assert_eq!(covered, Duration::from_millis(2450));

    let clock = SimulatedClock::interrupted_at(SECOND / 2);
    let (result, ..) = run(&scenario, 0.0, &clock);
    assert!(result.expect_err("no cell yet").is::<Interrupted>());
}

#[test]
fn a_cell_without_end_keeps_its_last_hour_or_two() {
    let scenario = scenario("quota = 50\nwarm-up = '1s'\nduration = '150m'", End::WhenTold);
    let (result, kept, _) = run(&scenario, 0.0, &SimulatedClock::default());
    let result = result.expect("it runs");
    assert_eq!(kept.samples.len(), 10 + 150 * 60 * 10);
    let first = result.samples.first().expect("samples").t_s;
    assert!(
        (9000.0 - 7200.0..=9000.0 - 3600.0).contains(&first),
        "from {first} s on"
    );
    assert!(result.stalls.iter().all(|stall| stall.at.as_secs_f64() >= first - 1.0));
}
