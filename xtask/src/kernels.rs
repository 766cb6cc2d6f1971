//! `kernels`: test floor 4. Boots Debian's kernels in virtual machines that see this machine's root folder, and
//! runs the tests there.

mod fetch;
mod initramfs;
mod mirror;
mod suite;
mod vm;

use std::{ffi::OsString, time::Duration};

use anyhow::{Result, bail};

use crate::{report, setup, sh, test::Count};
use suite::Job;

/// The oldest and the newest of Debian's supported kernels: one below tcx, one above.
const DEFAULT_KERNELS: &[&str] = &["6.1", "6.12"];

/// Which kernels, and what to run.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask kernels                     the suite on 6.1 and 6.12\n  \
    cargo xtask kernels 5.10                on another one: 5.10, 6.1, 6.12, or `sid` for the newest\n  \
    cargo xtask kernels 6.1 --only netns    only the jobs with `netns` in their name\n  \
    cargo xtask kernels 6.1 --only restart::orderly  and of its tests those with `orderly` in theirs\n  \
    cargo xtask kernels 6.12 -- uname -a    only this command, in this folder"
)]
pub(crate) struct Args {
    /// Kernel series
    #[arg(value_parser = fetch::Series::parse, default_values = DEFAULT_KERNELS)]
    kernels: Vec<fetch::Series>,
    /// Run only the jobs whose name contains one of these, and of a job's tests only those whose name contains TEST
    #[arg(long, value_delimiter = ',', value_name = "PART[::TEST],…")]
    only: Vec<String>,
    /// Seconds until a machine is given up
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
    /// Processors of the machine
    #[arg(long, default_value_t = 2)]
    processors: u32,
    /// Memory of the machine in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Do not optimise the program under test: builds faster, and runs slower in an emulated machine
    #[arg(long)]
    dev: bool,
    /// A command to run instead of the tests
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// What CI runs on every kernel: emulated, the whole suite takes the better part of an hour.
const ESSENTIAL: &[&str] = &[
    "tieline check",
    "programs load",
    "prog-run",
    "restart::a_whole_node_is_killed",
];

impl Args {
    /// The default kernels with the essential jobs only: that this kernel is fit, that every program loads, each frame's
    /// verdict, and a node that is killed and restarted under traffic.
    pub(crate) fn essential() -> Self {
        Self {
            kernels: DEFAULT_KERNELS
                .iter()
                .filter_map(|name| fetch::Series::parse(name).ok())
                .collect(),
            only: ESSENTIAL.iter().map(ToString::to_string).collect(),
            timeout: 1200,
            processors: 2,
            memory: 2048,
            dev: true,
            command: Vec::new(),
        }
    }
}

/// How a job ended on a kernel.
struct Outcome {
    kernel: String,
    job: Job,
    /// `None`: it was not over when the machine went down.
    exit: Option<i32>,
    count: Count,
    took: Duration,
}

impl Outcome {
    fn is_good(&self) -> bool {
        // A test binary that ran nothing proves nothing.
        self.exit == Some(0) && (!self.job.is_test || self.count.passed > 0)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !sh::is_root() {
        bail!(
            "the virtual machine sees this machine's files through a file server that needs root: run as root"
        );
    }
    setup::ensure(setup::Need::Kernels)?;
    let jobs = jobs(args)?;
    let mut outcomes = Vec::new();
    for series in &args.kernels {
        let kernel = fetch::kernel(series)?;
        let machine = vm::Machine {
            kernel: &kernel,
            processors: args.processors,
            memory_mib: args.memory,
            timeout: Duration::from_secs(args.timeout),
        };
        let ran = sh::step(&format!("Linux {}", kernel.release), || machine.run(&jobs))?;
        if !args.command.is_empty() {
            ran.iter().for_each(|done| print!("{}", done.output));
        }
        outcomes.extend(ran.into_iter().map(|done| judge(&kernel.release, done)));
    }
    println!("\n{}", summary(&outcomes));
    let failed = outcomes.iter().filter(|outcome| !outcome.is_good()).count();
    if failed > 0 {
        bail!(
            "{failed} of {} jobs failed on other kernels; their output is above",
            outcomes.len()
        );
    }
    Ok(())
}

fn jobs(args: &Args) -> Result<Vec<Job>> {
    if !args.command.is_empty() {
        return Ok(vec![Job::command(&args.command)]);
    }
    let mut jobs = suite::build(args.dev)?;
    if !args.only.is_empty() {
        jobs = picked(jobs, &args.only)?;
    }
    Ok(jobs)
}

/// The jobs that `only` names, with the tests that it names.
fn picked(jobs: Vec<Job>, only: &[String]) -> Result<Vec<Job>> {
    let split = |part: &String| match part.split_once("::") {
        Some((job, test)) => (job.to_owned(), Some(test.to_owned())),
        None => (part.clone(), None),
    };
    let only: Vec<(String, Option<String>)> = only.iter().map(split).collect();
    if let Some((part, _)) = only
        .iter()
        .find(|(part, _)| !jobs.iter().any(|job| job.name.contains(part)))
    {
        bail!("no job has `{part}` in its name");
    }
    let pick = |mut job: Job| {
        let asked: Vec<_> = only.iter().filter(|(part, _)| job.name.contains(part)).collect();
        let tests = asked.iter().map(|(_, test)| test.as_ref());
        // One that is asked for whole is run whole.
        if let Some(tests) = tests.collect::<Option<Vec<_>>>() {
            job.words.extend(tests.into_iter().map(Into::into));
        }
        (!asked.is_empty()).then_some(job)
    };
    Ok(jobs.into_iter().filter_map(pick).collect())
}

/// Reads a job's output, and shows it when it was not good.
fn judge(kernel: &str, done: vm::Done) -> Outcome {
    let mut count = Count::default();
    done.output.lines().for_each(|line| count.read_line(line));
    let outcome = Outcome {
        kernel: kernel.to_owned(),
        job: done.job,
        exit: done.exit,
        count,
        took: done.took,
    };
    if !outcome.is_good() {
        println!(
            "\n--- {} on Linux {kernel}: {}\n{}",
            outcome.job.name,
            verdict(&outcome),
            done.output.trim_end()
        );
    } else if outcome.job.show {
        println!(
            "--- {} on Linux {kernel}\n{}",
            outcome.job.name,
            done.output.trim_end()
        );
    }
    outcome
}

fn verdict(outcome: &Outcome) -> String {
    match outcome.exit {
        Some(0) if outcome.is_good() => "ok".to_owned(),
        Some(0) => "NO TEST RAN".to_owned(),
        Some(code) => format!("FAILED ({code})"),
        None => "DID NOT END".to_owned(),
    }
}

fn summary(outcomes: &[Outcome]) -> String {
    let row = |outcome: &Outcome| {
        let count = |number: u32| {
            if outcome.job.is_test {
                number.to_string()
            } else {
                String::new()
            }
        };
        vec![
            outcome.kernel.clone(),
            outcome.job.name.clone(),
            verdict(outcome),
            count(outcome.count.passed),
            count(outcome.count.failed),
            count(outcome.count.ignored),
            sh::seconds(outcome.took),
        ]
    };
    report::table(
        &["kernel", "job", "result", "passed", "failed", "ignored", "time"],
        outcomes.iter().map(row),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(exit: Option<i32>, is_test: bool, passed: u32) -> Outcome {
        let job = Job {
            is_test,
            ..Job::command(&["x".into()])
        };
        let count = Count {
            passed,
            ..Count::default()
        };
        Outcome {
            kernel: "6.1".to_owned(),
            job,
            exit,
            count,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn jobs_are_picked_by_a_part_of_their_name_and_their_tests_by_one_of_theirs() {
        let job = |name: &str| Job {
            name: name.to_owned(),
            ..Job::command(&["test".into()])
        };
        let jobs = || vec![job("netns restart"), job("netns crash")];
        let picked = |only: &[&str]| -> Vec<(String, usize)> {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            let picked = super::picked(jobs(), &only).unwrap_or_default().into_iter();
            picked.map(|job| (job.name, job.words.len() - 1)).collect()
        };
        let restart = |tests| vec![("netns restart".to_owned(), tests)];
        assert_eq!(picked(&["restart"]), restart(0));
        assert_eq!(picked(&["restart::one", "restart::two"]), restart(2));
        assert_eq!(picked(&["restart::one", "restart"]), restart(0), "whole");
        assert_eq!(picked(&["netns"]).len(), 2);
        assert_eq!(picked(&["restart", "nothing"]), [], "refused");
    }

    #[test]
    fn a_job_is_good_when_it_ended_well_and_its_tests_ran() {
        assert!(outcome(Some(0), true, 1).is_good());
        assert!(outcome(Some(0), false, 0).is_good());
        assert!(!outcome(Some(0), true, 0).is_good());
        assert!(!outcome(Some(101), true, 5).is_good());
        assert!(!outcome(None, false, 0).is_good());
    }
}
