//! `ci`: exactly what CI runs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{kernels, lint, report, setup, sh, test, tidy, verifier};

/// What to leave out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the virtual machines
    #[arg(long)]
    no_kernels: bool,
}

/// A step: its name and what it does.
type Step = (&'static str, fn() -> Result<()>);

/// Cheap ones first; the tests come last, so that their result lines end the log.
const STEPS: &[Step] = &[
    ("setup", || setup::ensure(setup::Need::Traffic)),
    ("tidy", || tidy::run(&tidy::Args::default())),
    ("lint", || lint::run(&lint::Args::default())),
    ("verifier", || verifier::run(&verifier::Args::default())),
    (KERNELS, || kernels::run(&kernels::Args::essential())),
    ("test", || test::run(&test::Args::default())),
];

const KERNELS: &str = "kernels";

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut results = Vec::new();
    for &(name, work) in STEPS {
        if name == KERNELS && args.no_kernels {
            continue;
        }
        println!("\n=== {name}");
        let began = Instant::now();
        let outcome = work();
        if let Err(error) = &outcome {
            eprintln!("error: {error:#}");
        }
        results.push((name, outcome.is_ok(), began.elapsed()));
        // Nothing else can work without a toolchain.
        if name == "setup" && outcome.is_err() {
            break;
        }
    }
    println!("\n{}", summary(&results));
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, ok, _)| !ok)
        .map(|(name, ..)| *name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

fn summary(results: &[(&str, bool, Duration)]) -> String {
    let total: Duration = results.iter().map(|(.., took)| *took).sum();
    let rows = results.iter().map(|(name, ok, took)| {
        vec![
            (*name).to_owned(),
            if *ok { "ok" } else { "FAILED" }.to_owned(),
            sh::seconds(*took),
        ]
    });
    let total = vec!["total".to_owned(), String::new(), sh::seconds(total)];
    report::table(&["step", "result", "time"], rows.chain([total]))
}
