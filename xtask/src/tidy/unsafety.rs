//! The places where `unsafe` may stand.

use anyhow::Result;

use super::Violation;
use crate::{source, workspace::File};

/// A path that begins with one of these may hold `unsafe`; CONTRIBUTING.md names them in words.
const ALLOWED: &[&str] = &[
    "dataplane-common/src/abi",
    // The context and map files; `trace` writes into the ring buffer memory that `maps` hands out.
    "dataplane-ebpf/src/ctx_",
    "dataplane-ebpf/src/globals.rs",
    "dataplane-ebpf/src/maps.rs",
    "dataplane-ebpf/src/trace.rs",
    "dataplane-user/src/sys",
    "tests/bench/ebpf/src/",
    "tests/lab/src/sys",
];

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let elsewhere = |file: &&File| !ALLOWED.iter().any(|prefix| file.path.starts_with(prefix));
    for file in files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .filter(elsewhere)
    {
        // Most files are cleared without reading their tokens.
        if !file.text.contains("unsafe") {
            continue;
        }
        for line in source::unsafe_lines(&source::tokens(file)?) {
            let what = "`unsafe` may not stand here: move it into a `sys` module, behind a safe function";
            violations.push(Violation::new(&file.path, line, what));
        }
    }
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn unsafe_outside_the_named_places_is_refused() {
        let text = "fn f() {\n    unsafe { g() }\n}\n";
        let files = [
            "cli/src/main.rs",
            "dataplane-user/src/sys/bpf.rs",
            "dataplane-ebpf/src/wire.rs",
        ];
        let files: Vec<File> = files.iter().map(|path| file(path, text)).collect();
        let found: Vec<_> = check(&files)
            .unwrap()
            .into_iter()
            .map(|v| (v.path, v.line))
            .collect();
        assert_eq!(
            found,
            [
                ("cli/src/main.rs".to_owned(), 2),
                ("dataplane-ebpf/src/wire.rs".to_owned(), 2)
            ]
        );
    }
}
