//! `test`: the floors, from pure logic up to real traffic.

mod count;
mod floors;

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, IsTerminal as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{build, report, setup, sh};
pub(crate) use count::Count;
pub(crate) use floors::Floor;

/// Environment variable that tells tests where the `tieline` binary is that they start.
pub(crate) const ENV_BINARY: &str = "TIELINE_BIN";

/// Which tests.
#[derive(Default, clap::Args)]
#[command(
    after_help = "Floors: 0 host unit and property tests, 1 scenarios on the fake datapath,\n\
    2 kernel programs under BPF_PROG_TEST_RUN, 3 network namespaces with real traffic.\n\n\
    Examples:\n  cargo xtask test            all of them\n  cargo xtask test 0 1        what needs no root\n  \
    cargo xtask test 3 -- adopt only tests of floor 3 with `adopt` in their name"
)]
pub(crate) struct Args {
    /// Floors to run; all when none is given
    #[arg(value_parser = floors::parse)]
    floors: Vec<Floor>,
    /// Arguments for the test binaries: names to filter by, `--nocapture`
    #[arg(last = true)]
    filter: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let floors = if args.floors.is_empty() {
        Floor::ALL.to_vec()
    } else {
        args.floors.clone()
    };
    if floors.iter().any(|floor| floor.needs_root()) && !sh::is_root() {
        bail!(
            "floors 2 and 3 load kernel programs and make network namespaces: run as root, or `cargo xtask test 0 1`"
        );
    }
    let needs_traffic = floors.contains(&Floor::Namespaces);
    setup::ensure(if needs_traffic {
        setup::Need::Traffic
    } else {
        setup::Need::Build
    })?;
    let mut results = Vec::new();
    for floor in floors {
        results.push(run_floor(floor, &args.filter)?);
    }
    println!("\n{}", summary(&results));
    verdict(&results, args.filter.is_empty())
}

/// What one floor's run came to.
struct FloorResult {
    floor: Floor,
    count: Count,
    /// Cargo's own verdict: false also when a test binary crashed or did not compile.
    success: bool,
    took: Duration,
}

fn run_floor(floor: Floor, filter: &[OsString]) -> Result<FloorResult> {
    println!("\n==> floor {}: {}", floor.number(), floor.title());
    let began = Instant::now();
    let mut cargo = sh::cargo();
    cargo.arg("test").args(floor.cargo_arguments());
    if floor == Floor::Namespaces {
        let built = build::build(&build::Args { dev: true })?;
        cargo.env(ENV_BINARY, built.binary);
    }
    cargo.arg("--").args(floor.harness_arguments());
    if std::io::stdout().is_terminal() {
        cargo.arg("--color=always");
    }
    cargo.args(filter);
    let (count, success) = run_and_count(&mut cargo)?;
    Ok(FloorResult {
        floor,
        count,
        success,
        took: began.elapsed(),
    })
}

/// Runs tests; every line is shown and read.
pub(crate) fn run_and_count(command: &mut Command) -> Result<(Count, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", sh::line(command)))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            count.read_line(&line);
        }
    }
    Ok((count, child.wait()?.success()))
}

fn summary(results: &[FloorResult]) -> String {
    let row = |result: &FloorResult| {
        vec![
            format!("{} {}", result.floor.number(), result.floor.title()),
            result.count.passed.to_string(),
            result.count.failed.to_string(),
            result.count.ignored.to_string(),
            sh::seconds(result.took),
        ]
    };
    report::table(
        &["floor", "passed", "failed", "ignored", "time"],
        results.iter().map(row),
    )
}

fn verdict(results: &[FloorResult], complete: bool) -> Result<()> {
    for FloorResult {
        floor,
        count,
        success,
        ..
    } in results
    {
        let number = floor.number();
        if count.ignored > 0 {
            eprintln!(
                "warning: floor {number}: {} tests are marked `ignore` and did not run",
                count.ignored
            );
        }
        if !success || count.failed > 0 {
            bail!("floor {number} failed: {} tests; see above", count.failed);
        }
        if complete && count.passed == 0 {
            bail!("floor {number} ran no test at all, which proves nothing");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(passed: u32, failed: u32, success: bool) -> FloorResult {
        let count = Count {
            passed,
            failed,
            ignored: 0,
        };
        FloorResult {
            floor: Floor::Host,
            count,
            success,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_floor_without_tests_is_a_failure_unless_it_was_filtered() {
        assert!(verdict(&[result(0, 0, true)], true).is_err());
        assert!(verdict(&[result(0, 0, true)], false).is_ok());
    }

    #[test]
    fn a_crashed_test_binary_is_a_failure_although_no_test_failed() {
        assert!(verdict(&[result(5, 0, true), result(5, 0, false)], true).is_err());
    }

    #[test]
    fn a_test_binary_is_run_and_counted() {
        let script = "echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured'; exit 7";
        let (count, success) = run_and_count(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(
            count,
            Count {
                passed: 3,
                failed: 0,
                ignored: 1
            }
        );
        assert!(!success);
    }
}
