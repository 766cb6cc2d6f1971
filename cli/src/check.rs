//! `tieline check`: can this machine run Tieline, and what to change if not.

mod facts;
mod machine;
mod probe;

use std::path::PathBuf;

use clap::Args;
use dataplane_user::loader::Backend;
use serde::Serialize;

pub(crate) use facts::missing_capabilities;

use crate::{
    args::Global,
    error::Failure,
    exit::Exit,
    output::{self, Row},
};

/// Flags of `check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo tieline check
  sudo tieline check -o json | jq '.findings[] | select(.level != \"ok\")'")]
pub(crate) struct CheckArgs {
    /// The BPF file system that the agent would use
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The state folder that the agent and control would use
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tieline")]
    state_dir: PathBuf,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It runs, with something less.
    Warn,
    /// It does not run.
    Fail,
}

/// One line of the answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    name: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to change; empty when nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Warn,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Fail,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

impl Row for Finding {
    const HEADINGS: &'static [&'static str] = &["CHECK", "", "FOUND"];

    fn cells(&self) -> Vec<String> {
        let mark = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        vec![self.name.to_owned(), mark.to_owned(), self.found.clone()]
    }
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether `tieline up` will run here.
    fit: bool,
    /// `block+tcx`, `block+clsact` or `tcx`; absent when none works.
    #[serde(skip_serializing_if = "Option::is_none")]
    attach_backend: Option<&'static str>,
    findings: Vec<Finding>,
}

/// Looks at everything.
pub(crate) fn run(global: &Global, args: &CheckArgs) -> Result<Exit, Failure> {
    let CheckArgs { bpffs, state_dir } = args;
    let (datapath, attach_backend) = datapath();
    let findings = vec![
        machine::kernel(),
        machine::capabilities(),
        datapath,
        machine::jit(),
        machine::btf(),
        machine::bpffs(bpffs),
        machine::cgroup2(),
        machine::memlock(),
        machine::folder("state folder", state_dir, "--state-dir"),
        machine::folder("run folder", &global.run_dir, "--run-dir"),
    ];
    let fit = findings.iter().all(|finding| finding.level < Level::Fail);
    let report = Report {
        fit,
        attach_backend,
        findings,
    };
    output::object(global.output, &report, || report.describe())?;
    Ok(if fit { Exit::Ok } else { Exit::Failed })
}

/// Whether a wire can be made and carries a packet, and by which back end.
fn datapath() -> (Finding, Option<&'static str>) {
    const NAME: &str = "datapath";
    match missing_capabilities() {
        Ok(missing) if missing.is_empty() => {}
        _ => {
            return (
                Finding::warn(NAME, "not tried", "run `tieline check` as root to try it"),
                None,
            );
        }
    }
    let works = |backend| format!("a wire in scratch namespaces carried a packet, attached by {backend}");
    let error = match probe::trial(Backend::Auto) {
        Ok(backend) => return (Finding::ok(NAME, works(backend)), Some(backend)),
        Err(error) => error,
    };
    match probe::trial(Backend::Clsact) {
        Ok(backend) => {
            let advice = "start the agent with --attach clsact";
            (
                Finding::warn(
                    NAME,
                    format!("{}; the default failed: {error:#}", works(backend)),
                    advice,
                ),
                Some(backend),
            )
        }
        Err(_) => {
            let advice = "see what the kernel refused; the lines above may say why";
            (Finding::fail(NAME, format!("{error:#}"), advice), None)
        }
    }
}

impl Report {
    /// The findings, then what to change, then the verdict.
    fn describe(&self) -> String {
        let mut text = output::table(&self.findings) + "\n";
        for finding in self.findings.iter().filter(|finding| !finding.advice.is_empty()) {
            text.push_str(&format!("{}: {}\n", finding.name, finding.advice));
        }
        text.push_str(&match (self.fit, self.attach_backend) {
            (true, Some(backend)) => {
                format!("This machine can run Tieline; programs will be attached by {backend}.\n")
            }
            (true, None) => {
                "This machine can probably run Tieline; as root this command would try.\n".to_owned()
            }
            (false, _) => "This machine cannot run Tieline as it is.\n".to_owned(),
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>, attach_backend: Option<&'static str>) -> Report {
        let fit = findings.iter().all(|finding| finding.level < Level::Fail);
        Report {
            fit,
            attach_backend,
            findings,
        }
    }

    #[test]
    fn the_answer_says_what_to_change_and_which_back_end_is_used() {
        let findings = vec![
            Finding::ok("kernel", "Linux 6.6"),
            Finding::warn("JIT", "off", "switch it on"),
        ];
        assert_eq!(
            report(findings, Some("tcx")).describe(),
            "CHECK           FOUND\n\
             kernel   ok     Linux 6.6\n\
             JIT      warn   off\n\n\
             JIT: switch it on\n\
             This machine can run Tieline; programs will be attached by tcx.\n"
        );
    }

    #[test]
    fn one_failure_makes_the_machine_unfit() {
        let report = report(
            vec![Finding::ok("a", "x"), Finding::fail("b", "y", "z")],
            Some("tcx"),
        );
        assert!(!report.fit);
        assert!(
            report
                .describe()
                .ends_with("b: z\nThis machine cannot run Tieline as it is.\n")
        );
    }
}
