//! `docs/tutorial.md`, command by command, as a reader would type it.

use std::{env, fs, path::Path, process::Command};

use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;

fn main() {
    run(vec![trial(
        "every command of the tutorial works",
        &[Need::Kvm, Need::Bpf, Need::Qemu],
        every_command_works,
    )]);
}

/// The lines of the shell blocks of a page.
fn commands(page: &str) -> Vec<&str> {
    let mut is_shell = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        match line {
            "```sh" => is_shell = true,
            "```" => is_shell = false,
            _ if is_shell => commands.push(line),
            _ => {}
        }
    }
    commands
}

fn every_command_works() -> Result<(), Failed> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md"))?;
    let mut script = String::from("set -eux\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for command in commands(&page) {
        script.push_str(command);
        // These two judge the machine as well, and a busy one may fail them: that is their answer, not an error.
        if command.starts_with("dirtyrig check second") || command.starts_with("dirtyrig migrate") {
            script.push_str(" || [ $? = 1 ]");
        }
        script.push('\n');
    }
    let folder = tempfile::tempdir()?;
    let programs = Path::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .parent()
        .ok_or("the binary lies in a folder")?;
    let path = env::join_paths(
        [programs.to_path_buf()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);

    // What the text says of each.
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Ready:") || shown.contains("Ready:"), "{said}{shown}");
    let observed = fs::read_to_string(folder.path().join("observed.csv"))?;
    assert!(observed.lines().count() >= 3, "{observed}");
    assert!(shown.contains(" held"), "{shown}");
    for file in ["held/plots/convergence.png", "held/plots/stalls.png"] {
        assert!(folder.path().join(file).exists(), "{file} was not drawn");
    }
    let check = fs::read_to_string(folder.path().join("check.xml"))?;
    assert!(check.contains("<testsuite"), "{check}");
    let moved = fs::read_to_string(folder.path().join("moved/migrations.csv"))?;
    assert_eq!(moved.lines().count(), 2, "{moved}");
    Ok(())
}
