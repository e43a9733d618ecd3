//! `dirtyrig serve` on real KVM: whole sessions, by a client of our own and by QEMU's.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::{Failed, Trial};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// A hang shows as a failure instead.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    const KVM: &[Need] = &[Need::Kvm];
    run(vec![
        trial("a session from greeting to quit", KVM, whole_session),
        trial(
            "a signal ends it, whatever sleeps or is measured",
            KVM,
            a_signal_ends_it,
        ),
        trial("the console takes commands from a pipe", KVM, console_from_a_pipe),
        trial("a hundred clients and some abuse leave the guest alone", KVM, abuse),
        with_qemus_client("qemu.qmp drives a session", LIBRARY),
        with_qemus_client("qmp-shell drives a session", SHELL),
    ]);
}

/// A `dirtyrig serve` in a folder of its own.
struct Served {
    child: Killed,
    stdin: Option<ChildStdin>,
    dir: tempfile::TempDir,
}

impl Served {
    fn start(arguments: &[&str]) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
            .args(["serve", "--out", "out", "--memory", "512", "--warm-up", "300ms"])
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        Ok(Self {
            child: Killed(child),
            stdin,
            dir,
        })
    }

    fn with_socket(arguments: &[&str]) -> Result<Self, Failed> {
        Self::start(&[&["--socket", "qmp"], arguments].concat())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("qmp")
    }

    fn connect(&self) -> Result<Client, Failed> {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => break stream,
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Client(BufReader::new(stream));
        if !client.read()?["QMP"]["version"]["qemu"].is_object() {
            return Err("no greeting".into());
        }
        Ok(client)
    }

    /// Waits for its end; its exit code, stdout and stderr.
    fn wait(mut self) -> Result<(Option<i32>, String, String, tempfile::TempDir), Failed> {
        drop(self.stdin.take());
        let child = &mut self.child.0;
        let mut status = None;
        wait_until("it ends", || {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        let (mut table, mut said) = (String::new(), String::new());
        child.stdout.take().ok_or("no stdout")?.read_to_string(&mut table)?;
        child.stderr.take().ok_or("no stderr")?.read_to_string(&mut said)?;
        if said.contains("panicked") || said.contains("error:") {
            return Err(said.into());
        }
        Ok((status.and_then(|status| status.code()), table, said, self.dir))
    }
}

/// A child that doesn't outlive a trial, which may fail at any line.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It fails if the child has ended by itself, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn read(&mut self) -> Result<Value, Failed> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn write(&self, text: &str) -> Result<(), Failed> {
        Ok(self.0.get_ref().write_all(text.as_bytes())?)
    }

    /// What a command returns.
    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn run(&mut self, command: &str, arguments: Value) -> Result<Value, Failed> {
        self.write(&json!({ "execute": command, "arguments": arguments }).to_string())?;
        let reply = self.read()?;
        reply
            .get("return")
            .cloned()
            .ok_or_else(|| format!("{command} {arguments}: {reply}").into())
    }

    fn negotiate(&mut self) -> Result<(), Failed> {
        self.run("qmp_capabilities", json!({})).map(drop)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<(), Failed> {
    if got == expected {
        Ok(())
    } else {
        Err(format!("{what}: {got:?} instead of {expected:?}").into())
    }
}

/// Waits until `done`; fails if that never comes.
fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let begin = Instant::now();
    while !done()? {
        if begin.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until a quota is recorded as the one in force on vCPU `vcpu`; empty for none.
fn wait_for_quota(dir: &Path, vcpu: &str, quota: &str) -> Result<(), Failed> {
    wait_until(&format!("vCPU {vcpu} is recorded under `{quota}`"), || {
        Ok(quotas(dir, vcpu)?.last().is_some_and(|last| last == quota))
    })
}

/// The quotas in the order in which they were in force on vCPU `vcpu`, as recorded; empty for none.
fn quotas(dir: &Path, vcpu: &str) -> Result<Vec<String>, Failed> {
    let mut seen = column(dir, vcpu, "quota_mib_s")?;
    seen.dedup();
    Ok(seen)
}

/// A column of the samples of vCPU `vcpu` as far as they are written.
fn column(dir: &Path, vcpu: &str, name: &str) -> Result<Vec<String>, Failed> {
    let text = fs::read_to_string(dir.join("out/samples.csv")).unwrap_or_default();
    // What follows the last line end is on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut reader = csv::Reader::from_reader(whole.as_bytes());
    let headers = reader.headers()?.clone();
    if headers.is_empty() {
        return Ok(Vec::new());
    }
    let index = |name: &str| headers.iter().position(|header| header == name).ok_or(name.to_owned());
    let (of_vcpu, wanted) = (index("vcpu")?, index(name)?);
    let mut values = Vec::new();
    for row in reader.records() {
        let row = row?;
        if &row[of_vcpu] == vcpu {
            values.push(row[wanted].to_owned());
        }
    }
    Ok(values)
}

fn whole_session() -> Result<(), Failed> {
    let served = Served::with_socket(&["--vcpus", "2", "--limiter", "budget", "--burst", "100ms"])?;
    let mut client = served.connect()?;
    equal("mode", fs::metadata(served.socket())?.mode() & 0o777, 0o600)?;
    client.negotiate()?;
    let cpus = client.run("query-cpus-fast", json!({}))?;
    for cpu in cpus.as_array().ok_or("no list")? {
        let thread = cpu["thread-id"].as_u64().ok_or("no thread")?;
        let name = fs::read_to_string(format!("/proc/{}/task/{thread}/comm", served.child.0.id()))?;
        equal("thread", name.trim_end(), &format!("vcpu{}", cpu["cpu-index"]))?;
    }
    client.run("set-vcpu-dirty-limit", json!({ "dirty-rate": 20, "cpu-index": 1 }))?;
    wait_for_quota(served.dir.path(), "1", "20.0")?;
    // Exact to a few pages and a burst; QEMU's whole MiB round down. A machine that is busy makes it less, though not each time.
    wait_until("vCPU 1 does its 20 MiB/s", || {
        client.run("calc-dirty-rate", json!({ "calc-time": 1, "mode": "dirty-ring" }))?;
        let mut measured = Value::Null;
        wait_until("the measurement ends", || {
            measured = client.run("query-dirty-rate", json!({}))?;
            Ok(measured["status"] == "measured")
        })?;
        let held = measured["vcpu-dirty-rate"][1]["dirty-rate"].as_u64().ok_or("no rate")?;
        if held > 22 {
            return Err(format!("limited to 20, measured as {measured}").into());
        }
        Ok(held >= 18)
    })?;
    let row = &client.run("query-vcpu-dirty-limit", json!({}))?[0];
    equal("index", row["cpu-index"].clone(), json!(1))?;
    equal("limit", row["limit-rate"].clone(), json!(20))?;
    client.run("set-vcpu-dirty-limit", json!({ "dirty-rate": 200 }))?;
    wait_for_quota(served.dir.path(), "0", "200.0")?;
    let info = client.run(
        "human-monitor-command",
        json!({ "command-line": "info vcpu_dirty_limit" }),
    )?;
    let info = info.as_str().ok_or("no text")?;
    if info.lines().count() != 2 || !info.starts_with("vcpu[0], limit rate 200 (MB/s), current rate ") {
        return Err(info.into());
    }
    client.run("cancel-vcpu-dirty-limit", json!({ "cpu-index": 0 }))?;
    wait_for_quota(served.dir.path(), "0", "")?;
    equal("quit", client.run("quit", json!({}))?, json!({}))?;
    let event = client.read()?;
    equal("event", event["event"].clone(), json!("SHUTDOWN"))?;
    equal("reason", event["data"]["reason"].clone(), json!("host-qmp-quit"))?;
    let socket = served.socket();
    let (code, table, _, dir) = served.wait()?;
    equal("exit code", code, Some(0))?;
    equal("the socket is left", socket.exists(), false)?;
    if !table.contains("verdict") {
        return Err(format!("no summary: {table}").into());
    }
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    equal("recorded quotas", quotas(dir.path(), "0")?, texts(&["", "200.0", ""]))?;
    equal(
        "recorded quotas",
        quotas(dir.path(), "1")?,
        texts(&["", "20.0", "200.0"]),
    )?;
    Ok(())
}

/// Whether vCPU 0 is recorded as asleep, with a throttle of at least `throttle`.
fn sleeps_for(dir: &Path, throttle: Duration) -> Result<bool, Failed> {
    let last_two = |name| -> Result<Option<[u64; 2]>, Failed> {
        let values = column(dir, "0", name)?;
        let Some([before, last]) = values.last_chunk() else {
            return Ok(None);
        };
        Ok(Some([before.parse()?, last.parse()?]))
    };
    let throttles = |values: [u64; 2]| u128::from(values[1]) >= throttle.as_micros();
    Ok(last_two("throttle_us")?.is_some_and(throttles)
        && last_two("slept_us")?.is_some_and(|[before, last]| last > before))
}

fn a_signal_ends_it() -> Result<(), Failed> {
    // A throttle of QEMU 10's law that nothing but the end cuts short, and a measurement that waits for the sleeper.
    // Its ring is full within a period on a host that dirties 32 MiB/s, and then it sleeps for 99 times as long as that took.
    let served = Served::with_socket(&[
        "--limiter",
        "qemu-10",
        "--ring",
        "16384",
        "--period",
        "2s",
        "--quota",
        "1",
    ])?;
    let mut client = served.connect()?;
    client.negotiate()?;
    wait_until("it sleeps for seconds", || {
        sleeps_for(served.dir.path(), Duration::from_secs(1))
    })?;
    client.run("calc-dirty-rate", json!({ "calc-time": 60, "mode": "dirty-ring" }))?;
    kill(Pid::from_raw(served.child.0.id().cast_signed()), Signal::SIGTERM)?;
    let event = client.read()?;
    equal("reason", event["data"]["reason"].clone(), json!("host-signal"))?;
    equal("after it", client.0.read(&mut [0])?, 0)?;
    let (code, _, _, dir) = served.wait()?;
    equal("exit code", code, Some(130))?;
    equal("summary", dir.path().join("out/summary.csv").exists(), true)
}

fn console_from_a_pipe() -> Result<(), Failed> {
    let mut served = Served::start(&["--console", "--limiter", "budget", "--quota", "25"])?;
    let stdin = served.stdin.as_mut().ok_or("no stdin")?;
    stdin.write_all(b"info vcpu_dirty_limit\nvcpu_dirty_limit -g on -1 500\ninfo vcpu_dirty_limit\n")?;
    // No line end, no `quit`: the end of the input is the end where there is no socket.
    stdin.write_all(b"vcpu_dirty_limit -g off\ninfo vcpu_dirty_limit\nnonsense")?;
    let (code, said, _, _) = served.wait()?;
    equal("exit code", code, Some(0))?;
    let said: Vec<&str> = said.lines().collect();
    if said.len() < 6 || !said[0].starts_with("vcpu[0], limit rate 25 (MB/s), current rate ") {
        return Err(format!("{said:?}").into());
    }
    let hint = "[Please use 'info vcpu_dirty_limit' to query dirty limit for virtual CPU]";
    equal("on", said[1], hint)?;
    equal("limit", said[2].starts_with("vcpu[0], limit rate 500 (MB/s)"), true)?;
    equal("off", &said[3..5], &[hint, "Dirty page limit not enabled!"])?;
    equal("nonsense", said[5], "unknown command: 'nonsense'")
}

fn abuse() -> Result<(), Failed> {
    let served = Served::with_socket(&["--limiter", "budget"])?;
    let mut clients = (0..100).map(|_| served.connect()).collect::<Result<Vec<_>, _>>()?;
    for (index, client) in clients.iter_mut().enumerate() {
        client.negotiate()?;
        client.run("set-vcpu-dirty-limit", json!({ "dirty-rate": index + 1 }))?;
    }
    let limits = clients[0].run("query-vcpu-dirty-limit", json!({}))?;
    equal("limit", limits[0]["limit-rate"].clone(), json!(100))?;
    for (index, client) in clients.iter_mut().enumerate() {
        match index % 4 {
            0 => client.write("{\"execute\": ")?,
            1 => client.write(&format!("{}\n", "x".repeat(1 << 16)))?,
            2 => client.0.get_ref().shutdown(std::net::Shutdown::Write)?,
            _ => {}
        }
    }
    clients.truncate(50);
    let mut client = served.connect()?;
    client.negotiate()?;
    client.run("quit", json!({}))?;
    let (code, ..) = served.wait()?;
    equal("exit code", code, Some(0))
}

// ---- QEMU's own client ------------------------------------------------------------------------------------------------

/// The Python that has qemu.qmp: that of the folder named by `DIRTYRIG_QMP_VENV`, or `target/qmp-venv`, which
/// `xtask/qmp-client.sh` makes.
fn venv() -> PathBuf {
    std::env::var_os("DIRTYRIG_QMP_VENV").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/qmp-venv"),
        PathBuf::from,
    )
}

/// A trial that needs KVM, and QEMU's client as well: ignored where that is missing, unless `DIRTYRIG_REQUIRE` names `qmp`.
fn with_qemus_client(name: &str, program: fn(&Path, &Path) -> Result<(), Failed>) -> Trial {
    let is_required =
        std::env::var("DIRTYRIG_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word.trim() == "qmp"));
    if venv().join("bin/qmp-shell").is_file() || is_required {
        trial(name, &[Need::Kvm], move || {
            let served = Served::with_socket(&["--limiter", "budget", "--vcpus", "2"])?;
            drop(served.connect()?);
            program(&venv().join("bin"), &served.socket())?;
            let (code, _, _, dir) = served.wait()?;
            equal("exit code", code, Some(0))?;
            let seen = quotas(dir.path(), "1")?;
            equal("recorded quotas", seen.contains(&"40.0".to_owned()), true)
        })
    } else {
        Trial::test(format!("{name} (needs qmp: xtask/qmp-client.sh)"), || Ok(())).with_ignored_flag(true)
    }
}

/// Runs one of its programs with `input` on stdin and gives back what it printed.
fn output_of(command: &mut Command, input: &str) -> Result<String, Failed> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if !output.status.success() || said.contains("Traceback") {
        return Err(format!("{}: {said}", output.status).into());
    }
    Ok(said)
}

const LIBRARY: fn(&Path, &Path) -> Result<(), Failed> = |bin, socket| {
    let script = r#"
import asyncio, os, sys
from qemu.qmp import QMPClient, ExecuteError

async def main():
    client = QMPClient("test")
    await client.connect(sys.argv[1])
    names = [command["name"] for command in await client.execute("query-commands")]
    assert "set-vcpu-dirty-limit" in names, names
    # Many at once, each with an id of its own, and one that fails between them.
    versions = await asyncio.gather(*(client.execute("query-version" if n != 25 else "nonsense") for n in range(50)),
                                    return_exceptions=True)
    assert [n for n, version in enumerate(versions) if isinstance(version, ExecuteError)] == [25], versions
    await client.execute("set-vcpu-dirty-limit", {"dirty-rate": 40, "cpu-index": 1})
    samples = os.path.join(os.path.dirname(sys.argv[1]), "out", "samples.csv")
    for _ in range(1200):
        with open(samples) as file:
            if ",40.0," in file.read():
                break
        await asyncio.sleep(0.05)
    [limit] = await client.execute("query-vcpu-dirty-limit")
    assert (limit["cpu-index"], limit["limit-rate"]) == (1, 40), limit
    await client.execute("calc-dirty-rate",
        {"calc-time": 200, "calc-time-unit": "millisecond", "mode": "dirty-ring"})
    while True:
        rate = await client.execute("query-dirty-rate")
        if rate["status"] == "measured":
            break
        await asyncio.sleep(0.05)
    assert [vcpu["id"] for vcpu in rate["vcpu-dirty-rate"]] == [0, 1], rate
    for command, arguments, error in [("nonsense", {}, "CommandNotFound"),
                                      ("set-vcpu-dirty-limit", {}, "GenericError"),
                                      ("cancel-vcpu-dirty-limit", {"cpu-index": 7}, "GenericError")]:
        try:
            await client.execute(command, arguments)
            assert False, command
        except ExecuteError as refused:
            assert refused.error_class == error, (command, refused)
    await client.execute("cancel-vcpu-dirty-limit")
    with client.listener("SHUTDOWN") as listener:
        await client.execute("quit")
        event = await listener.get()
    assert event["data"]["reason"] == "host-qmp-quit", event
    try:
        await client.disconnect()
    except EOFError:
        pass  # The server hung up first, as it should.
    print("whole session")

asyncio.run(main())
"#;
    let said = output_of(Command::new(bin.join("python")).arg("-c").arg(script).arg(socket), "")?;
    equal("the end", said.trim(), "whole session")
};

const SHELL: fn(&Path, &Path) -> Result<(), Failed> = |bin, socket| {
    let commands = "query-status\nset-vcpu-dirty-limit dirty-rate=40\nquery-vcpu-dirty-limit\n\
                    human-monitor-command command-line='help'\ncancel-vcpu-dirty-limit cpu-index=9\n";
    let said = output_of(Command::new(bin.join("qmp-shell")).arg(socket), commands)?;
    for words in [
        "Connected to QEMU",
        "\"status\": \"running\"",
        "\"limit-rate\": 40",
        "GenericError",
    ] {
        equal(
            &format!("`{words}` in {said}"),
            said.replace('\'', "\"").contains(words),
            true,
        )?;
    }
    wait_for_quota(socket.parent().ok_or("the socket is in a folder")?, "1", "40.0")?;
    output_of(
        Command::new(bin.join("qmp-shell")).arg("-H").arg(socket),
        "info vcpu_dirty_limit\nquit\n",
    )
    .map(drop)
};
