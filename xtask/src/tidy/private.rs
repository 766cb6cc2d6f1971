//! What belongs to one machine or one network does not belong into the tree.

use anyhow::Result;

use super::Violation;
use crate::workspace::File;

/// Folders of a developer's machine. In two pieces, so that this file does not break its own rule.
const FOLDERS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
];

/// Hosts that packages come from: which one to use is the machine's configuration.
const HOSTS: &[&str] = &[
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("ftp.debian", ".org"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("static.", "rust-lang.org"),
    concat!("pypi.", "org"),
    concat!("registry.", "npmjs.org"),
    concat!("proxy.", "golang.org"),
];

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let folder = FOLDERS.iter().find(|folder| holds_path(line, folder));
            let host = HOSTS.iter().find(|host| line.contains(**host));
            let what = match (folder, host) {
                (Some(folder), _) => format!("a path of somebody's machine: `{folder}`"),
                (_, Some(host)) => {
                    format!("a package host: `{host}`; take it from the machine's configuration")
                }
                (None, None) => continue,
            };
            violations.push(Violation::new(&file.path, index + 1, what));
        }
    }
    Ok(violations)
}

/// Whether an absolute path into `folder` stands in the line; the same name inside a longer path is another one.
fn holds_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-})/".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_path_of_a_machine_and_a_package_host_are_refused() {
        let folder = FOLDERS[0];
        let text = format!(
            "let a = \"{folder}tieline\";\nlet b = \"tests{folder}x\";\nURI: http://{}/x\n",
            HOSTS[0]
        );
        let found = check(&[file("a.rs", &text)]).unwrap();
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [1, 3]);
    }
}
