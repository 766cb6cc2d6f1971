//! Relative links in documents must lead to a file or folder of the tree.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::Violation;
use crate::workspace::File;

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, link) in links(&file.text) {
            let target = resolve(&file.path, link);
            if !files
                .iter()
                .any(|known| Path::new(&known.path).starts_with(&target))
            {
                let what = format!("the link to `{link}` leads nowhere");
                violations.push(Violation::new(&file.path, line, what));
            }
        }
    }
    Ok(violations)
}

/// Line and path of each relative link, without its fragment; code is not text.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Inside back quotes is every second piece.
        for rest in line
            .split('`')
            .step_by(2)
            .flat_map(|piece| piece.split("](").skip(1))
        {
            let link = rest.split([')', ' ']).next().unwrap_or_default();
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:") {
                found.push((index + 1, path));
            }
        }
    }
    found
}

fn resolve(from: &str, link: &str) -> PathBuf {
    let mut path = Path::new(from)
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_link_leads_to_a_file_or_a_folder() {
        let files = [
            file(
                "docs/a.md",
                "[x](../README.md#top) [y](adr) [z](adr/0001-x.md) [w](https://example.org/none)\n",
            ),
            file("docs/adr/0001-x.md", "[up](../a.md)\n"),
            file("README.md", "see [docs](docs/)\n"),
        ];
        assert_eq!(check(&files).unwrap(), []);
    }

    #[test]
    fn a_link_to_nowhere_is_refused_and_code_is_not_read() {
        let text = "ok\n[x](gone.md)\n```\n[y](gone.md)\n```\nand `[z](gone.md)` too\n";
        let found = check(&[file("a.md", text)]).unwrap();
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [2]);
    }
}
