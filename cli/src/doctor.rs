//! `doctor`: checks the machine and a bus, says what was found and what to do. Nothing is changed, no bus is disturbed.

mod bus;
mod machine;

pub(crate) use machine::governors;

use crate::args::Doctor;
use crate::failure::{Exit, Failure};
use crate::show::{print, to_json};
use crate::units::plural;
use serde::Serialize;
use std::fmt::Write as _;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Works; could be faster, or is good to know.
    Note,
    /// Works now; something is lost, held up or left over, or will be.
    Warning,
    /// Does not work.
    Fault,
}

impl Level {
    const ALL: [Self; 4] = [Self::Ok, Self::Note, Self::Warning, Self::Fault];

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One check and its result. Field names are a contract, as those of the reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    event: &'static str,
    /// What was checked: one word that scripts can rely on.
    check: &'static str,
    level: Level,
    found: String,
    /// What to do; `null` if there is nothing to do.
    advice: Option<String>,
}

impl Finding {
    fn new(check: &'static str, level: Level, found: impl Into<String>, advice: Option<String>) -> Self {
        Self { event: "finding", check, level, found: found.into(), advice }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, found, None)
    }

    fn note(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Level::Note, found, Some(advice.into()))
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Level::Warning, found, Some(advice.into()))
    }

    fn fault(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Level::Fault, found, Some(advice.into()))
    }
}

/// The last line: how many findings of each level, and the exit code.
#[derive(Serialize)]
struct Verdict {
    event: &'static str,
    worst: Level,
    ok: usize,
    notes: usize,
    warnings: usize,
    faults: usize,
    code: u8,
}

impl Verdict {
    /// `unusable` is the exit code of a bus that could not be looked at.
    fn of(findings: &[Finding], unusable: Option<Exit>) -> (Self, Exit) {
        let [ok, notes, warnings, faults] =
            Level::ALL.map(|level| findings.iter().filter(|finding| finding.level == level).count());
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        let exit = unusable.unwrap_or(match worst {
            Level::Ok | Level::Note => Exit::Fine,
            Level::Warning => Exit::Warned,
            Level::Fault => Exit::Fault,
        });
        (Self { event: "verdict", worst, ok, notes, warnings, faults, code: exit as u8 }, exit)
    }
}

pub(crate) fn run(args: &Doctor, json: bool) -> Result<Exit, Failure> {
    let capacity = args.path.as_ref().and_then(|path| lapwing::Bus::inspect(path).ok()).map(|bus| bus.capacity);
    let mut sections = vec![("this machine".to_owned(), machine::check(capacity))];
    let mut unusable = None;
    if let Some(path) = &args.path {
        let (findings, exit) = bus::check(path);
        unusable = exit;
        sections.push((path.display().to_string(), findings));
    }
    let all: Vec<Finding> = sections.iter().flat_map(|(_, findings)| findings.clone()).collect();
    let (verdict, exit) = Verdict::of(&all, unusable);
    if json {
        let mut lines = all.iter().map(to_json).collect::<Result<String, _>>()?;
        lines += &to_json(&verdict)?;
        print(&lines)?;
    } else {
        print(&describe(&sections, &verdict))?;
    }
    Ok(exit)
}

fn describe(sections: &[(String, Vec<Finding>)], verdict: &Verdict) -> String {
    let mut text = String::new();
    for (title, findings) in sections {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{title}");
        for Finding { check, level, found, advice, .. } in findings {
            let _ = writeln!(text, "  {:<8} {:<16} {found}", level.word(), check.replace('_', " "));
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:<28}→ {advice}", "");
            }
        }
        text.push('\n');
    }
    let counted = [(verdict.faults, "fault"), (verdict.warnings, "warning"), (verdict.notes, "note")];
    let counted: Vec<String> =
        counted.iter().filter(|(count, _)| *count != 0).map(|&(count, noun)| plural(count as u64, noun)).collect();
    text + &if counted.is_empty() { "nothing to do\n".to_owned() } else { counted.join(", ") + "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding() {
        let findings = [
            Finding::ok("a", "fine"),
            Finding::note("b", "slow", "do this"),
            Finding::warning("c", "left over", "remove it"),
            Finding::fault("d", "broken", "mend it"),
        ];
        for (upto, exit) in [(0, Exit::Fine), (1, Exit::Fine), (2, Exit::Fine), (3, Exit::Warned), (4, Exit::Fault)] {
            assert_eq!(Verdict::of(&findings[..upto], None).1, exit, "{upto}");
        }
        let (verdict, exit) = Verdict::of(&findings, Some(Exit::NoBus));
        assert_eq!((verdict.worst, verdict.code, exit), (Level::Fault, 3, Exit::NoBus));
        assert_eq!((verdict.ok, verdict.notes, verdict.warnings, verdict.faults), (1, 1, 1, 1));
    }
}
