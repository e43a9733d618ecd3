//! The page of a report in a real browser: nothing is wider than the window, the script runs without an error, tables
//! sort, both in light and dark, wide and narrow; and it prints.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
};

use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;

fn main() {
    run(vec![
        trial(
            "a page fits its window, its script runs, and no table is cut off in one of 1300 px",
            &[Need::Chromium],
            fits,
        ),
        trial("a page prints", &[Need::Chromium], prints),
        trial(
            "a strict Content-Security-Policy takes nothing from a page of files",
            &[Need::Chromium],
            under_a_policy,
        ),
    ]);
}

/// A folder served over HTTP, until it is dropped.
struct Served {
    server: Arc<tiny_http::Server>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// With a `Content-Security-Policy`, if one is given.
    fn start(folder: PathBuf, policy: Option<&'static str>) -> Result<Self, Failed> {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").map_err(|error| error.to_string())?);
        let requests = Arc::clone(&server);
        let thread = std::thread::spawn(move || {
            while let Ok(request) = requests.recv() {
                let name = request.url().trim_start_matches('/').to_owned();
                let kind = match name.rsplit_once('.').map(|(_, end)| end) {
                    Some("html") => "text/html; charset=utf-8",
                    Some("css") => "text/css; charset=utf-8",
                    Some("svg") => "image/svg+xml",
                    _ => "text/plain",
                };
                let header = |name: &str, value: &str| tiny_http::Header::from_bytes(name, value).expect("plain ASCII");
                let body = fs::read(folder.join(&name)).unwrap_or_default();
                let mut response = tiny_http::Response::from_data(body).with_header(header("Content-Type", kind));
                if let Some(policy) = policy {
                    response.add_header(header("Content-Security-Policy", policy));
                }
                // A browser that has gone needs no answer.
                let _ = request.respond(response);
            }
        });
        Ok(Self {
            server,
            thread: Some(thread),
        })
    }

    fn address(&self, name: &str) -> String {
        format!("http://{}/{name}", self.server.server_addr())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            // It answers nobody any more; what it panicked over has been seen by the browser.
            let _ = thread.join();
        }
    }
}

/// What the frames of a page have in their titles, in its own.
const GATHER: &str = "<script>addEventListener('load', () => {
  const frames = [...document.querySelectorAll('iframe')];
  document.title = JSON.stringify(frames.map(frame => JSON.parse(frame.contentDocument.title)));
});</script>";

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

/// Windows of several widths, light and dark, in one browser, for to start one takes longer than all that is shown in it: each is
/// a frame of one page, which has their verdicts in its title.
fn fits() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let two = page(dir.path())?;
    let text = fs::read_to_string(&two)?;
    let text = text.replacen("</head>", &format!("{LISTEN}</head>"), 1);
    fs::write(&two, text.replacen("</body>", &format!("{JUDGE}</body>"), 1))?;
    let one = report(dir.path(), "html", "tables.html")?;
    let text = fs::read_to_string(&one)?;
    fs::write(&one, text.replacen("</body>", &format!("{TABLES}</body>"), 1))?;

    let pages = [(1600, false), (1600, true), (500, false), (500, true)];
    let tables = [(500, false), (800, false), (1300, true), (1600, true)];
    let frame = |page: &str, width: i32, scheme: &str| {
        format!(
            "<iframe src=\"{page}\" style=\"width: {width}px; height: 900px; border: 0; color-scheme: {scheme}\"></iframe>"
        )
    };
    let scheme = |dark| if dark { "dark" } else { "light" };
    let shown = pages.map(|(width, dark)| frame("page.html", width, scheme(dark)));
    let shown = [shown, tables.map(|(width, _)| frame("tables.html", width, "light"))].concat();
    fs::write(
        dir.path().join("index.html"),
        format!("<!doctype html><title></title>{}{GATHER}", shown.concat()),
    )?;
    let served = Served::start(dir.path().to_owned(), None)?;
    let facts = judged(&mut browser(&dir.path().join("profile")), &served.address("index.html"))?;
    let facts = facts
        .as_array()
        .filter(|facts| facts.len() == shown.len())
        .ok_or("a fact for each")?;
    let (of_pages, of_tables) = facts.split_at(pages.len());

    for ((width, dark), facts) in pages.into_iter().zip(of_pages) {
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
    for ((width, is_wide), over) in tables.into_iter().zip(of_tables) {
        let all = over.as_array().ok_or("no list")?;
        let is_seen = |table: &serde_json::Value| {
            let (whole, words, room) = (&table[0], &table[1], table[2].as_u64());
            // Where there is no room for all columns, figures may be scrolled to, but not the reasons.
            (*whole == 0 || !is_wide) && *words == 0 && room > Some(150)
        };
        if all.len() < 2 || !all.iter().all(is_seen) {
            return Err(format!("{width} px: [out of sight, words out of sight, their width]: {over}").into());
        }
    }
    Ok(())
}

/// What the browser says in the title of the page at `address`.
fn judged(browser: &mut Command, address: &str) -> Result<serde_json::Value, Failed> {
    let output = browser.arg("--dump-dom").arg(address).output()?;
    let dom = String::from_utf8_lossy(&output.stdout);
    let title = dom
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"))
        .ok_or("the browser shows no page")?
        .0;
    serde_json::from_str(&title.replace("&quot;", "\"").replace("&amp;", "&"))
        .map_err(|_| format!("nothing was judged: {title}").into())
}

fn report(dir: &Path, format: &str, out: &str) -> Result<PathBuf, Failed> {
    let reference = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results/reference");
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .arg("report")
        .arg(&reference)
        .args(["--format", format, "--out", out])
        .current_dir(dir)
        .output()?;
    if output.status.success() {
        Ok(dir.join(out))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}

/// The tables that are seen without unfolding anything: what of each is out of sight, and what of its words is.
const TABLES: &str = "<script>addEventListener('load', () => {
  const shown = [...document.querySelectorAll('#findings .scroll, #rates .scroll')];
  const over = (box, part) => Math.max(0, Math.ceil(part.right - box.right), Math.ceil(box.left - part.left));
  document.title = JSON.stringify(shown.map(box => [
    box.scrollWidth - box.clientWidth,
    Math.max(...[...box.querySelectorAll('td.words')].map(words => over(box.getBoundingClientRect(), words.getBoundingClientRect()))),
    Math.min(...[...box.querySelectorAll('td.words')].map(words => words.clientWidth)),
  ]));
});</script>";

/// What is on the page, and what the policy refused. It is the one script that the test's policy lets through.
const INVENTORY: &str = "addEventListener('load', () => {
  const count = what => document.querySelectorAll(what).length;
  document.title = JSON.stringify({
    refused: window.refused ?? [], paper: getComputedStyle(document.querySelector('thead th')).backgroundColor,
    cells: count('td'), words: count('li') + count('dd'), headings: count('h1, h2, h3'),
    pictures: [...document.querySelectorAll('figure')].filter(figure => figure.querySelector('svg') || figure.querySelector('img')?.naturalWidth > 300).length,
    figures: count('figure'),
  });
});";

fn under_a_policy() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let whole = report(dir.path(), "html", "page.html")?;
    let files = report(dir.path(), "html-files", "files")?;
    // As Jenkins serves what builds leave behind, but for the one script that looks.
    let policy = "sandbox allow-scripts; default-src 'none'; img-src 'self'; style-src 'self'; script-src 'nonce-look'";
    let listen = "<script nonce=\"look\">window.refused = []; \
                  addEventListener('securitypolicyviolation', e => refused.push(e.violatedDirective + ' ' + e.blockedURI));</script>";
    for (path, script) in [
        (&whole, "<script>"),
        (&files.join("index.html"), "<script nonce=\"look\">"),
    ] {
        let text = fs::read_to_string(path)?.replacen("<head>", &format!("<head>{listen}"), 1);
        fs::write(
            path,
            text.replacen("</body>", &format!("{script}{INVENTORY}</script></body>"), 1),
        )?;
    }
    let served = Served::start(files, Some(policy))?;
    let in_files = judged(
        &mut browser(&dir.path().join("profile-files")),
        &served.address("index.html"),
    )?;
    let in_one = judged(
        &mut browser(&dir.path().join("profile-one")),
        &format!("file://{}", whole.display()),
    )?;
    if in_files != in_one || in_files["refused"] != serde_json::json!([]) || in_files["pictures"] != in_files["figures"]
    {
        return Err(format!("under the policy {in_files}, without {in_one}").into());
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
