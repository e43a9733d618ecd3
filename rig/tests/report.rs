//! The page of a report in a real browser: nothing is wider than the window, the script runs without an error, tables
//! sort, both in light and dark, wide and narrow; and it prints.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;

fn main() {
    run(vec![
        trial("a page fits its window and its script runs", &[Need::Chromium], fits),
        trial("a page prints", &[Need::Chromium], prints),
    ]);
}

/// Put before the page's own script, so that its errors are heard.
const LISTEN: &str = "<script>window.errors = []; addEventListener('error', e => errors.push(e.message));</script>";

/// Says in the document's title what was found.
const JUDGE: &str = "<script>addEventListener('load', () => {
  const root = document.documentElement, table = document.querySelector('table[data-sortable]');
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex(head => head.textContent.trim().startsWith('predicted floor'));
  heads[column].querySelector('button').click();
  const values = [...table.tBodies[0].rows].map(row => parseFloat(row.cells[column].dataset.v));
  const facts = {
    over: root.scrollWidth - root.clientWidth, errors, rows: values.length,
    sorted: values.every((value, i) => i === 0 || values[i - 1] <= value),
    paper: getComputedStyle(document.body).backgroundColor, width: root.clientWidth,
    figures: [...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 300).length,
  };
  document.title = JSON.stringify(facts);
});</script>";

fn page(dir: &Path) -> Result<PathBuf, Failed> {
    let reference = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results/reference");
    let path = dir.join("page.html");
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .arg("report")
        .args([&reference, &reference])
        .arg("--out")
        .arg(&path)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(path)
}

/// A browser that shows nothing, asks nobody, and keeps nothing.
fn browser(profile: &Path) -> Command {
    let mut browser = Command::new("chromium");
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    browser
}

fn fits() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = page(dir.path())?;
    let text = fs::read_to_string(&path)?;
    let text = text.replacen("</head>", &format!("{LISTEN}</head>"), 1);
    fs::write(&path, text.replacen("</body>", &format!("{JUDGE}</body>"), 1))?;
    for (width, dark) in [(1600, false), (1600, true), (500, false), (500, true)] {
        let mut browser = browser(&dir.path().join(format!("profile-{width}-{dark}")));
        if dark {
            browser.arg("--blink-settings=preferredColorScheme=0");
        }
        let output = browser
            .arg(format!("--window-size={width},900"))
            .arg("--dump-dom")
            .arg(format!("file://{}", path.display()))
            .output()?;
        let dom = String::from_utf8_lossy(&output.stdout);
        let title = dom
            .split_once("<title>")
            .and_then(|(_, rest)| rest.split_once("</title>"))
            .ok_or("the browser shows no page")?
            .0;
        let facts: serde_json::Value =
            serde_json::from_str(title).map_err(|_| format!("nothing was judged: {title}"))?;
        let paper = if dark { "rgb(21, 23, 27)" } else { "rgb(255, 255, 255)" };
        let good = facts["over"] == 0
            && facts["errors"].as_array().is_some_and(Vec::is_empty)
            && facts["sorted"] == true
            && facts["rows"].as_u64() > Some(10)
            && facts["figures"].as_u64() > Some(10)
            && facts["paper"] == paper;
        if !good {
            return Err(format!("{width} wide, dark {dark}: {facts}").into());
        }
    }
    Ok(())
}

fn prints() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = page(dir.path())?;
    let pdf = dir.path().join("page.pdf");
    let status = browser(&dir.path().join("profile"))
        .arg("--no-pdf-header-footer")
        .arg(format!("--print-to-pdf={}", pdf.display()))
        .arg(format!("file://{}", path.display()))
        .stdout(Stdio::null())
        .status()?;
    let bytes = fs::read(&pdf)?;
    if !status.success() || !bytes.starts_with(b"%PDF") || bytes.len() < 50_000 {
        return Err(format!("{status}, {} bytes of PDF", bytes.len()).into());
    }
    Ok(())
}
