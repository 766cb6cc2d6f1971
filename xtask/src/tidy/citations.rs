//! A cited decision must exist.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Violation;
use crate::workspace::File;

const FOLDER: &str = "docs/adr/";
const PREFIX: &str = "ADR-";

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let known: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix(FOLDER)?.get(..4))
        .collect();
    let mut violations = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            for number in cited(line).filter(|number| !known.contains(number)) {
                let what = format!("{PREFIX}{number} does not exist in {FOLDER}");
                violations.push(Violation::new(&file.path, index + 1, what));
            }
        }
    }
    Ok(violations)
}

/// The four digits after each `ADR-`; other text after it is no citation.
fn cited(line: &str) -> impl Iterator<Item = &str> {
    line.split(PREFIX)
        .skip(1)
        .filter_map(|rest| rest.get(..4))
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_citation_without_its_decision_is_refused() {
        let files = [
            file("docs/adr/0001-record.md", "# ADR-0001: record\n"),
            file(
                "a.rs",
                &format!("//! See {PREFIX}0001, {PREFIX}0777 and {PREFIX}NNNN.\n"),
            ),
        ];
        let found = check(&files).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("0777") && found[0].line == 1);
    }
}
