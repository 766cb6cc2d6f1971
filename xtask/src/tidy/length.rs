//! Files that have grown beyond one reason to change.

use anyhow::Result;

use super::Violation;
use crate::workspace::File;

/// The most lines of a Rust file. Functions are clippy's: see clippy.toml.
const MAX_LINES: usize = 800;

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let long = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .filter_map(|file| {
            let lines = file.text.lines().count();
            let what = format!("has {lines} lines, {MAX_LINES} are allowed: split it by reason to change");
            (lines > MAX_LINES).then(|| Violation::new(&file.path, 0, what))
        });
    Ok(long.collect())
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn one_line_too_many_is_refused() {
        let fits = file("a.rs", &"\n".repeat(MAX_LINES));
        let long = file("b.rs", &"\n".repeat(MAX_LINES + 1));
        let other = file("c.lock", &"\n".repeat(MAX_LINES + 1));
        let found = check(&[fits, long, other]).unwrap();
        assert_eq!(
            found.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(),
            ["b.rs"]
        );
    }
}
