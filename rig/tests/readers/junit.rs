//! `check --format junit` against the schema of Jenkins' xUnit plugin, and in a parser that CI tools use.

use std::process::Command;

use dirtyrig_testkit::{Need, readers, trial};
use libtest_mimic::{Failed, Trial};

use super::{python, recordings};

pub(crate) fn trials() -> Vec<Trial> {
    const PYTHON: &[Need] = &[Need::PythonReaders];
    vec![
        trial("JUnit: the schema of Jenkins", PYTHON, schema),
        trial("JUnit: junitparser", PYTHON, parser),
    ]
}

/// A report with a regression.
fn report() -> Result<Vec<u8>, Failed> {
    let dir = tempfile::tempdir()?;
    recordings::repetitions(&dir.path().join("old"), 10, 1000.0);
    recordings::repetitions(&dir.path().join("new"), 10, 1500.0);
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["check", "new", "--baseline", "old", "--format", "junit"])
        .current_dir(dir.path())
        .output()?;
    if output.status.code() != Some(1) {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(output.stdout)
}

/// What GitLab and others read beyond this schema is taken out, and nothing else: the file of a case, and how many cases
/// of the whole report were skipped.
const SCHEMA: &str = r#"
import sys, xml.etree.ElementTree as tree, xmlschema
report = tree.fromstring(sys.stdin.buffer.read())
assert report.attrib.pop("skipped") is not None
for case in report.iter("testcase"):
    assert case.attrib.pop("file") == "new/summary.csv", case.attrib
problems = list(xmlschema.XMLSchema(sys.argv[1]).iter_errors(report))
assert not problems, problems
print(len(list(report.iter("testcase"))), "cases")
"#;

fn schema() -> Result<(), Failed> {
    let schema = readers().join("share/junit-10.xsd");
    let said = python(SCHEMA, &[schema.to_str().ok_or("a plain path")?], &report()?)?;
    if said.trim() == "5 cases" {
        Ok(())
    } else {
        Err(said.into())
    }
}

const PARSER: &str = r#"
import sys, junitparser
report = junitparser.JUnitXml.fromstring(sys.stdin.buffer.read())
suites = list(report)
assert [suite.name for suite in suites] == ["qemu-7.2 ring 4096 0.5 s quota 100"], suites
assert abs(report.time - 30) < 0.01 and abs(suites[0].time - 30) < 0.01, (report.time, suites[0].time)
assert (suites[0].tests, suites[0].failures, suites[0].errors) == (5, 3, 0), suites[0]
for case in suites[0]:
    assert case.classname == "dirtyrig.qemu-7_2 ring 4096 0_5 s quota 100", case.classname
    assert abs(case.time - 6) < 0.01, case.time
    assert case._elem.attrib["file"] == "new/summary.csv"
    for result in case.result:
        assert isinstance(result, (junitparser.Failure, junitparser.Skipped)), result
        assert result.message and result.text == result.message, result
failed = [case for case in suites[0] if any(isinstance(result, junitparser.Failure) for result in case.result)]
assert [case.name for case in failed] == ["stall_p50_us", "stall_p99_us", "stall_p999_us"], failed
message = failed[0].result[0].message
assert message.startswith("regressed: 1004 us in the baseline, 1507 in the candidate, +50.0 % ("), message
"#;

fn parser() -> Result<(), Failed> {
    python(PARSER, &[], &report()?).map(drop)
}
