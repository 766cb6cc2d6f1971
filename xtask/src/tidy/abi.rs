//! The recorded layout of the map ABI: it may change together with its version only.
//!
//! The record holds the layout itself and no hash of it, so that a review shows what changed.

use anyhow::{Context as _, Result, bail};
use dataplane_common::{ABI_VERSION, Reason};

use super::{Violation, find};
use crate::{
    source,
    workspace::{self, File},
};

const RECORD: &str = "dataplane-common/abi.lock";
const SOURCES: &str = "dataplane-common/src/abi";

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let actual = Layout::of(files)?;
    let recorded = match find(files, RECORD) {
        Ok(file) => &file.text,
        Err(missing) => return Ok(vec![missing]),
    };
    Ok(compare(&actual, recorded).into_iter().collect())
}

/// Records the layout. A change under the same version is not recorded: maps of the old layout may be pinned on
/// machines, and an agent finds them by the version.
pub(super) fn bless(files: &[File]) -> Result<()> {
    let actual = Layout::of(files)?;
    if let Ok(record) = find(files, RECORD)
        && version_of(&record.text) == Some(actual.version)
        && !actual.extends(&record.text)
    {
        bail!("{}", must_bump(actual.version));
    }
    workspace::write(RECORD, &actual.to_string())
}

fn compare(actual: &Layout, recorded: &str) -> Option<Violation> {
    if actual.to_string() == recorded {
        return None;
    }
    let what = if version_of(recorded) != Some(actual.version) || actual.extends(recorded) {
        "is not what the sources say: `cargo xtask tidy --bless` records it".to_owned()
    } else {
        must_bump(actual.version)
    };
    Some(Violation::new(RECORD, 0, what))
}

fn must_bump(version: u32) -> String {
    format!(
        "the ABI differs from what was recorded for version {version}: raise ABI_VERSION in {SOURCES}.rs, then \
         `cargo xtask tidy --bless`"
    )
}

/// The ABI as text, in a stable order.
struct Layout {
    version: u32,
    structs: Vec<String>,
    reasons: Vec<String>,
}

impl Layout {
    fn of(files: &[File]) -> Result<Self> {
        let mut structs = Vec::new();
        for file in files
            .iter()
            .filter(|file| file.path.starts_with(SOURCES) && file.path.ends_with(".rs"))
        {
            for found in source::abi_structs(&source::tokens(file)?) {
                structs.push(format!("struct {} {}", found.name, found.size));
                let field = |(name, kind, _docs): &(String, String, String)| {
                    format!("  {name} {}", kind.replace(' ', ""))
                };
                structs.extend(found.fields.iter().map(field));
            }
        }
        if structs.is_empty() {
            return Err(anyhow::anyhow!("no `abi_struct!` was found below {SOURCES}"))
                .context("the ABI guard would prove nothing");
        }
        let reason = |reason: &Reason| format!("reason {} {}", reason.number(), reason.as_str());
        Ok(Self {
            version: ABI_VERSION,
            structs,
            reasons: Reason::ALL.iter().map(reason).collect(),
        })
    }

    /// Whether this is the recorded layout with reasons added: numbers that were never used take nothing away.
    fn extends(&self, recorded: &str) -> bool {
        let mut lines = recorded.lines().filter(|line| !line.starts_with('#'));
        let structs: Vec<&str> = lines.by_ref().skip(1).take(self.structs.len()).collect();
        structs == self.structs && lines.all(|line| self.reasons.iter().any(|reason| reason == line))
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "# The map ABI that ABI_VERSION stands for. Written by `cargo xtask tidy --bless`."
        )?;
        writeln!(f, "version {}", self.version)?;
        self.structs
            .iter()
            .chain(&self.reasons)
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn version_of(recorded: &str) -> Option<u32> {
    recorded
        .lines()
        .find_map(|line| line.strip_prefix("version ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(version: u32, fields: &[&str], reasons: &[&str]) -> Layout {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Layout {
            version,
            structs: own(fields),
            reasons: own(reasons),
        }
    }

    #[test]
    fn a_changed_layout_needs_another_version() {
        let recorded = layout(1, &["struct P 8", "  a u64"], &["reason 0 x"]).to_string();
        assert_eq!(
            compare(&layout(1, &["struct P 8", "  a u64"], &["reason 0 x"]), &recorded),
            None
        );
        let changed = compare(&layout(1, &["struct P 8", "  b u64"], &["reason 0 x"]), &recorded);
        assert!(changed.unwrap().what.contains("ABI_VERSION"));
        let bumped = compare(&layout(2, &["struct P 8", "  b u64"], &["reason 0 x"]), &recorded);
        assert!(bumped.unwrap().what.contains("--bless"));
    }

    #[test]
    fn a_reason_may_be_added_but_not_given_another_number() {
        let recorded = layout(1, &["struct P 8"], &["reason 0 x"]).to_string();
        let added = compare(
            &layout(1, &["struct P 8"], &["reason 0 x", "reason 1 y"]),
            &recorded,
        );
        assert!(!added.unwrap().what.contains("raise"));
        let moved = compare(
            &layout(1, &["struct P 8"], &["reason 0 y", "reason 1 x"]),
            &recorded,
        );
        assert!(moved.unwrap().what.contains("raise"));
    }
}
