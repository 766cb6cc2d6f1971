//! `tidy`: the rules that no compiler knows. Each is a pure function from the tree to what violates it.

mod abi;
mod arrows;
mod citations;
mod length;
mod links;
mod private;
mod tables;
mod unsafety;

use anyhow::{Result, bail};

use crate::workspace::{self, File};

/// What to do.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Write what is generated (docs/maps.md, docs/reasons.md, the recorded ABI) instead of comparing it
    #[arg(long)]
    bless: bool,
}

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    /// 0: the whole file.
    line: usize,
    /// What is wrong, and what to do about it.
    what: String,
}

impl Violation {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

type Rule = fn(&[File]) -> Result<Vec<Violation>>;

/// Every rule, with the words it is announced by.
const RULES: &[(&str, Rule)] = &[
    ("arrows between crates point one way", arrows::check),
    ("files fit a mind", length::check),
    ("`unsafe` stands where it may", unsafety::check),
    ("the ABI changes with its version only", abi::check),
    ("maps and reasons are documented", tables::check),
    ("cited decisions exist", citations::check),
    ("links lead somewhere", links::check),
    ("nothing of one machine is in the tree", private::check),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.bless {
        let files = workspace::files()?;
        abi::bless(&files)?;
        tables::bless(&files)?;
    }
    let files = workspace::files()?;
    let mut violations = 0;
    for (name, rule) in RULES {
        let found = rule(&files)?;
        println!("{} {name}", if found.is_empty() { "ok    " } else { "BROKEN" });
        for violation in &found {
            println!("       {violation}");
        }
        violations += found.len();
    }
    if violations > 0 {
        bail!("{violations} violations of the house rules");
    }
    Ok(())
}

/// The file at `path`, or the violation that it is missing.
fn find<'a>(files: &'a [File], path: &str) -> std::result::Result<&'a File, Violation> {
    files
        .iter()
        .find(|file| file.path == path)
        .ok_or_else(|| Violation::new(path, 0, "is missing"))
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
