//! The human monitor: commands as people type them, in the spelling of QEMU since 7.1 and in that of the letter of patch
//! series v11. What is printed for a limit or a rate is what QEMU prints, because scripts read it.

use std::fmt::Write;

use super::{
    monitor::{Monitor, version},
    wire::{DirtyRateMode, DirtyRateStatus, Error, TimeUnit},
};

/// What a line was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// To be shown; every line ends with `\n`.
    pub text: String,
    /// Whether the end was asked for.
    pub quits: bool,
}

/// One command.
struct Command {
    /// One or two words.
    name: &'static str,
    parameters: &'static str,
    about: &'static str,
    run: fn(&Monitor, &[&str]) -> Result<String, Refused>,
}

/// Why a line was refused.
enum Refused {
    /// It makes no command; the text says why.
    Usage(String),
    /// The command failed.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

const HINT: &str = "[Please use 'info vcpu_dirty_limit' to query dirty limit for virtual CPU]\n";
const QUIT: [&str; 2] = ["quit", "q"];
const HELP: [&str; 2] = ["help", "?"];
/// What takes a second word.
const INFO: &str = "info";

const COMMANDS: &[Command] = &[
    Command {
        name: "set_vcpu_dirty_limit",
        parameters: "dirty_rate [cpu_index]",
        about: "limit one vCPU, or each, to a rate in MB/s (MiB/s, as everywhere in QEMU); 0 cancels",
        run: set,
    },
    Command {
        name: "cancel_vcpu_dirty_limit",
        parameters: "[cpu_index]",
        about: "cancel the limit of one vCPU, or of each",
        run: cancel,
    },
    Command {
        name: "vcpu_dirty_limit",
        parameters: "[-g] on|off [cpu_index] [dirty_rate]",
        about: "the same as spelt by patch series v11: `-g on -1 500`, `on 0 300`, `off 0`, `-g off`",
        run: v11,
    },
    Command {
        name: "calc_dirty_rate",
        parameters: "[-r] [-b] second [sample_pages_per_GB]",
        about: "measure how fast the guest dirties memory; -r by dirty ring, which is what there is here",
        run: calc_dirty_rate,
    },
    Command {
        name: "info vcpu_dirty_limit",
        parameters: "",
        about: "show the limit and the rate of each limited vCPU",
        run: info_limit,
    },
    Command {
        name: "info dirty_rate",
        parameters: "",
        about: "show the measured dirty rate",
        run: info_dirty_rate,
    },
    Command {
        name: "info cpus",
        parameters: "",
        about: "show the vCPUs and their threads",
        run: info_cpus,
    },
    Command {
        name: "info status",
        parameters: "",
        about: "show whether the guest runs",
        run: info_status,
    },
    Command {
        name: "info version",
        parameters: "",
        about: "show who speaks",
        run: info_version,
    },
];

/// Does what `line` says.
pub fn run(monitor: &Monitor, line: &str) -> Answer {
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = |text: String| Answer { text, quits: false };
    match words[..] {
        [] => Answer::default(),
        [word] if QUIT.contains(&word) => Answer {
            text: String::new(),
            quits: true,
        },
        [word, ref name @ ..] if HELP.contains(&word) => said(help(&name.join(" "))),
        [INFO] => said(help(INFO)),
        _ => said(command(monitor, &words)),
    }
}

fn command(monitor: &Monitor, words: &[&str]) -> String {
    let of_name = if words[0] == INFO { 2 } else { 1 };
    let (name, arguments) = words.split_at(of_name);
    let name = name.join(" ");
    let Some(command) = find(&name) else {
        return unknown(&name);
    };
    match (command.run)(monitor, arguments) {
        Ok(text) => text,
        Err(Refused::Failed(error)) => format!("Error: {error}\n"),
        Err(Refused::Usage(why)) => format!("{name}: {why}\nTry \"help {name}\" for more information\n"),
    }
}

fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

fn unknown(name: &str) -> String {
    format!("unknown command: '{}'\n", super::arguments::shortened(name))
}

fn help(name: &str) -> String {
    let described = |command: &Command| {
        let parameters = command.parameters;
        let space = if parameters.is_empty() { "" } else { " " };
        format!("{}{space}{parameters} -- {}\n", command.name, command.about)
    };
    let own = "help|? [command] -- show the commands, or one of them\nquit|q -- end the guest and the session\n";
    match name {
        "" => COMMANDS.iter().map(described).chain([own.to_owned()]).collect(),
        INFO => COMMANDS
            .iter()
            .filter(|command| command.name.starts_with(INFO))
            .map(described)
            .collect(),
        _ => find(name).map_or_else(|| unknown(name), described),
    }
}

/// What `line`, typed so far, may go on with: whole words in place of the last one.
pub fn completions(line: &str) -> Vec<&'static str> {
    let (before, last) = line.rsplit_once(' ').unwrap_or(("", line));
    let words = |before: &str| -> Vec<&'static str> {
        match before {
            "" => {
                let plain = COMMANDS.iter().map(|command| command.name);
                let plain = plain.filter(|name| !name.contains(' '));
                plain.chain([INFO, HELP[0], QUIT[0]]).collect()
            }
            INFO => COMMANDS
                .iter()
                .filter_map(|command| command.name.strip_prefix(INFO))
                .map(str::trim_start)
                .collect(),
            "vcpu_dirty_limit" => vec!["-g", "on", "off"],
            "vcpu_dirty_limit -g" => vec!["on", "off"],
            "calc_dirty_rate" => vec!["-r"],
            _ => Vec::new(),
        }
    };
    let before = before.trim();
    let context = HELP
        .iter()
        .find_map(|help| before.strip_prefix(help))
        .map_or(before, str::trim_start);
    words(context)
        .into_iter()
        .filter(|word| word.starts_with(last))
        .collect()
}

// ---- arguments --------------------------------------------------------------------------------------------------------

fn number(text: &str) -> Result<i64, Refused> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| {
        let text = super::arguments::shortened(text);
        Refused::Usage(format!("`{text}` is not a whole number"))
    })
}

/// An index as typed: -1 stands for every vCPU.
fn index(text: &str) -> Result<Option<i64>, Refused> {
    Ok(Some(number(text)?).filter(|&index| index != -1))
}

fn rate(text: &str) -> Result<u64, Refused> {
    let rate = number(text)?;
    u64::try_from(rate)
        .map_err(|_| Error::generic(format!("a limit of {rate} MB/s can't be held: give 0 or more")).into())
}

fn too_many() -> Refused {
    Refused::Usage("there are more words than it takes".to_owned())
}

fn nothing_more(arguments: &[&str]) -> Result<(), Refused> {
    if arguments.is_empty() { Ok(()) } else { Err(too_many()) }
}

// ---- limits -----------------------------------------------------------------------------------------------------------

fn set(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    let (limit, cpu) = match *arguments {
        [] => return Err(Refused::Usage("the rate is missing".to_owned())),
        [limit] => (rate(limit)?, None),
        [limit, cpu] => (rate(limit)?, index(cpu)?),
        _ => return Err(too_many()),
    };
    monitor.set(cpu, limit)?;
    Ok(String::new())
}

fn cancel(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    let cpu = match *arguments {
        [] => None,
        [cpu] => index(cpu)?,
        _ => return Err(too_many()),
    };
    monitor.cancel(cpu)?;
    Ok(HINT.to_owned())
}

fn v11(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    let (global, arguments) = match arguments {
        ["-g", rest @ ..] => (true, rest),
        all => (false, all),
    };
    // With -g an index may be given, but is not looked at.
    let cpu = |text: &str| -> Result<Option<i64>, Refused> {
        let index = index(text)?;
        match index {
            None if !global => Err(Refused::Usage("-1 stands for every vCPU only after -g".to_owned())),
            _ => Ok(index.filter(|_| !global)),
        }
    };
    match *arguments {
        ["on", of, limit] => monitor.set(cpu(of)?, rate(limit)?)?,
        ["on", ..] => return Err(Refused::Usage("`on` takes an index and a rate".to_owned())),
        ["off"] if global => monitor.cancel(None)?,
        ["off", of] => monitor.cancel(cpu(of)?)?,
        ["off", ..] => return Err(Refused::Usage("`off` takes an index, or -g for all".to_owned())),
        _ => return Err(Refused::Usage("say `on` or `off`".to_owned())),
    }
    Ok(HINT.to_owned())
}

fn info_limit(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    nothing_more(arguments)?;
    let rows = monitor.query()?;
    if rows.is_empty() {
        return Ok("Dirty page limit not enabled!\n".to_owned());
    }
    Ok(rows.iter().fold(String::new(), |mut text, row| {
        let (cpu, limit, current) = (row.cpu_index, row.limit_rate, row.current_rate);
        let _ = writeln!(
            text,
            "vcpu[{cpu}], limit rate {limit} (MB/s), current rate {current} (MB/s)"
        );
        text
    }))
}

// ---- dirty rate -------------------------------------------------------------------------------------------------------

fn calc_dirty_rate(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    let flags = arguments.iter().take_while(|word| word.starts_with('-')).count();
    let (flags, arguments) = arguments.split_at(flags);
    let mut mode = None;
    for &flag in flags {
        let flagged = match flag {
            "-r" => DirtyRateMode::DirtyRing,
            "-b" => DirtyRateMode::DirtyBitmap,
            _ => return Err(Refused::Usage(format!("there is no option {flag}"))),
        };
        if mode.replace(flagged).is_some_and(|other| other != flagged) {
            return Ok("Either dirty ring or dirty bitmap can be specified!\n".to_owned());
        }
    }
    let (seconds, sample_pages) = match *arguments {
        [] => return Err(Refused::Usage("the time in seconds is missing".to_owned())),
        [seconds] => (number(seconds)?, None),
        [seconds, pages] => (number(seconds)?, Some(number(pages)?)),
        _ => return Err(too_many()),
    };
    monitor.calc_dirty_rate(seconds, TimeUnit::Second, mode.unwrap_or_default(), sample_pages)?;
    Ok(format!(
        "Starting dirty rate measurement with period {seconds} seconds\n[Please use 'info dirty_rate' to check results]\n"
    ))
}

fn info_dirty_rate(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    nothing_more(arguments)?;
    let info = monitor.query_dirty_rate(TimeUnit::Second)?;
    let (status, mode) = match (info.status, info.mode) {
        (DirtyRateStatus::Unstarted, _) => ("unstarted", "page-sampling"),
        (DirtyRateStatus::Measuring, _) => ("measuring", "dirty-ring"),
        (DirtyRateStatus::Measured, _) => ("measured", "dirty-ring"),
    };
    // QEMU writes "(ms)" after what are seconds.
    let mut text = format!("Status: {status}\nStart Time: {} (ms)\n", info.start_time);
    if info.mode == DirtyRateMode::PageSampling {
        let _ = writeln!(text, "Sample Pages: {} (per GB)", info.sample_pages);
    }
    let _ = writeln!(text, "Period: {} (sec)\nMode: {mode}", info.calc_time);
    match info.dirty_rate {
        Some(rate) => drop(writeln!(text, "Dirty rate: {rate} (MB/s)")),
        None => text.push_str("Dirty rate: (not ready)\n"),
    }
    for vcpu in info.vcpu_dirty_rate.unwrap_or_default() {
        let _ = writeln!(text, "vcpu[{}], Dirty rate: {} (MB/s)", vcpu.id, vcpu.dirty_rate);
    }
    Ok(text)
}

// ---- the VM -----------------------------------------------------------------------------------------------------------

fn info_cpus(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    nothing_more(arguments)?;
    let vcpus = monitor.vm().vcpus();
    Ok(vcpus.iter().fold(String::new(), |mut text, vcpu| {
        let mark = if text.is_empty() { '*' } else { ' ' };
        let thread = vcpu.thread.map_or_else(|| "-".to_owned(), |thread| thread.to_string());
        let _ = writeln!(text, "{mark} CPU #{}: thread_id={thread}", vcpu.index);
        text
    }))
}

fn info_status(monitor: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    nothing_more(arguments)?;
    let running = monitor.vm().is_running();
    Ok(format!("VM status: {}\n", if running { "running" } else { "paused" }))
}

fn info_version(_: &Monitor, arguments: &[&str]) -> Result<String, Refused> {
    nothing_more(arguments)?;
    let version = version();
    let qemu = version.qemu;
    Ok(format!(
        "{}.{}.{} {}\n",
        qemu.major, qemu.minor, qemu.micro, version.package
    ))
}
