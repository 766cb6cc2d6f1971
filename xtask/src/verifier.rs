//! `verifier`: what each kernel program costs, against the committed budget.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{messages, report, setup, sh, workspace};

/// What to do.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Record what is measured as the new budget
    #[arg(long)]
    bless: bool,
}

const BUDGET: &str = "docs/verifier-budget.toml";
/// Another compiler release may move instructions around: that much more than the record is no regression.
const MARGIN_PERCENT: u64 = 10;
/// The package and the binary that load the programs.
const PACKAGE: &str = "tieline-tests-prog-run";
const BINARY: &str = "verifier-report";

/// One program in one configuration.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    program: String,
    configuration: String,
    /// Absent before Linux 5.16.
    verified_instructions: Option<u64>,
    stack_bytes: u64,
    translated_bytes: Option<u64>,
    /// 0 without the JIT compiler.
    jited_bytes: u64,
}

/// The committed budget.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// Release of the kernel it was measured on: verifiers differ.
    kernel: String,
    /// By program, then by configuration.
    program: BTreeMap<String, BTreeMap<String, Cost>>,
}

/// What is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    verified_instructions: u64,
    stack_bytes: u64,
    translated_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Need::Build)?;
    if !sh::is_root() {
        bail!("the kernel verifies programs for root only: run as root");
    }
    let rows = measure()?;
    let kernel = kernel_release()?;
    println!("Linux {kernel}\n{}", table(&rows));
    if args.bless {
        let budget = Budget {
            kernel,
            program: costs(&rows),
        };
        return write_budget(&budget);
    }
    let text = workspace::read(BUDGET).context("no budget is recorded: `cargo xtask verifier --bless`")?;
    let budget: Budget = toml::from_str(&text).with_context(|| format!("{BUDGET} cannot be read"))?;
    let complaints = compare(&budget, &costs(&rows));
    if complaints.is_empty() {
        println!(
            "within the budget of {BUDGET} (recorded on Linux {}, margin {MARGIN_PERCENT} %)",
            budget.kernel
        );
        return Ok(());
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    bail!(
        "the kernel programs cost more than {BUDGET} allows; if that is worth it, `cargo xtask verifier --bless`"
    )
}

/// Builds what loads the programs.
pub(crate) fn build_report() -> Result<PathBuf> {
    let mut cargo = sh::cargo();
    messages::of_cargo(cargo.args(["build", "--package", PACKAGE, "--bin", BINARY]))?
        .executable(BINARY)
        .with_context(|| format!("cargo built no `{BINARY}`"))
}

fn measure() -> Result<Vec<Row>> {
    let printed = sh::capture(&mut sh::command(build_report()?)).context("a kernel program was refused")?;
    let rows: Vec<Row> = serde_json::from_str(&printed).context("the report is JSON")?;
    if rows.is_empty() {
        bail!("the object holds no program");
    }
    Ok(rows)
}

fn kernel_release() -> Result<String> {
    let name = nix::sys::utsname::uname().context("uname")?;
    Ok(name.release().to_string_lossy().into_owned())
}

fn table(rows: &[Row]) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let row = |row: &Row| {
        vec![
            row.program.clone(),
            row.configuration.clone(),
            number(row.verified_instructions),
            row.stack_bytes.to_string(),
            number(row.translated_bytes),
            row.jited_bytes.to_string(),
        ]
    };
    let header = [
        "program",
        "configuration",
        "verified instructions",
        "stack, bytes",
        "translated, bytes",
        "jited, bytes",
    ];
    report::table(&header, rows.iter().map(row))
}

fn costs(rows: &[Row]) -> BTreeMap<String, BTreeMap<String, Cost>> {
    let mut costs: BTreeMap<String, BTreeMap<String, Cost>> = BTreeMap::new();
    for row in rows {
        let cost = Cost {
            verified_instructions: row.verified_instructions.unwrap_or(0),
            stack_bytes: row.stack_bytes,
            translated_bytes: row.translated_bytes.unwrap_or(0),
        };
        costs
            .entry(row.program.clone())
            .or_default()
            .insert(row.configuration.clone(), cost);
    }
    costs
}

fn compare(budget: &Budget, measured: &BTreeMap<String, BTreeMap<String, Cost>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (program, configurations) in measured {
        for (configuration, cost) in configurations {
            let name = format!("{program} ({configuration})");
            match budget
                .program
                .get(program)
                .and_then(|known| known.get(configuration))
            {
                None => complaints.push(format!("{name}: has no budget")),
                Some(limit) => complaints.extend(over(&name, *cost, *limit)),
            }
        }
    }
    let gone = budget
        .program
        .keys()
        .filter(|program| !measured.contains_key(*program));
    complaints.extend(gone.map(|program| format!("{program}: has a budget and is not in the object")));
    complaints
}

fn over(name: &str, cost: Cost, limit: Cost) -> Vec<String> {
    let pairs = [
        (
            "verified instructions",
            cost.verified_instructions,
            limit.verified_instructions,
        ),
        ("bytes of stack", cost.stack_bytes, limit.stack_bytes),
        ("translated bytes", cost.translated_bytes, limit.translated_bytes),
    ];
    let too_much = pairs
        .into_iter()
        .filter(|(_, cost, limit)| *cost * 100 > *limit * (100 + MARGIN_PERCENT));
    too_much
        .map(|(what, cost, limit)| format!("{name}: {cost} {what}, the budget is {limit}"))
        .collect()
}

fn write_budget(budget: &Budget) -> Result<()> {
    let text = format!(
        "# What each kernel program may cost; `cargo xtask verifier` fails above this plus {MARGIN_PERCENT} %.\n\
         # Written by `cargo xtask verifier --bless`. Configurations: `default` as the agent loads it, `maximum` with\n\
         # the largest tables and events switched on.\n{}",
        toml::to_string(budget)?
    );
    workspace::write(BUDGET, &text)?;
    println!("recorded in {BUDGET}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(instructions: u64) -> BTreeMap<String, BTreeMap<String, Cost>> {
        let cost = Cost {
            verified_instructions: instructions,
            stack_bytes: 100,
            translated_bytes: 1000,
        };
        BTreeMap::from([("p".to_owned(), BTreeMap::from([("default".to_owned(), cost)]))])
    }

    fn budget(instructions: u64) -> Budget {
        Budget {
            kernel: "6.18".to_owned(),
            program: one(instructions),
        }
    }

    #[test]
    fn the_margin_is_allowed_and_one_more_is_not() {
        assert!(compare(&budget(100), &one(110)).is_empty());
        assert_eq!(compare(&budget(100), &one(111)).len(), 1);
        assert!(compare(&budget(100), &one(50)).is_empty());
    }

    #[test]
    fn a_program_without_a_budget_and_a_budget_without_a_program_are_refused() {
        assert_eq!(compare(&Budget::default(), &one(1)).len(), 1);
        assert_eq!(compare(&budget(100), &BTreeMap::new()).len(), 1);
    }

    #[test]
    fn the_budget_survives_writing_and_reading() {
        let text = toml::to_string(&budget(7)).unwrap();
        assert_eq!(toml::from_str::<Budget>(&text).unwrap(), budget(7));
    }
}
