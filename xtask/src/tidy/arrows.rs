//! Which crate may know which.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Violation;
use crate::workspace::File;

/// The allowed graph: a crate, and the crates of ours it may depend on.
///
/// Test-only dependencies are exempt, except for the crates below.
const ALLOWED: &[(&str, &[&str])] = &[
    ("dataplane-common", &[]),
    ("dataplane-ebpf", &["dataplane-common"]),
    ("ebpf-toolchain", &[]),
    (
        "dataplane-user",
        &["dataplane-common", "ebpf-toolchain", "tieline-proto"],
    ),
    ("tieline-proto", &[]),
    ("tieline-model", &["tieline-proto"]),
    ("tieline-store", &["tieline-model"]),
    ("tieline-planner", &["tieline-model"]),
    ("tieline-registry", &["tieline-model", "tieline-planner"]),
    (
        "tieline-control",
        &[
            "tieline-model",
            "tieline-planner",
            "tieline-proto",
            "tieline-registry",
            "tieline-store",
        ],
    ),
    (
        "tieline",
        &[
            "dataplane-common",
            "dataplane-user",
            "tieline-control",
            // `demo` and `check` are self-tests that the product carries: they make the same namespaces.
            "tieline-lab",
            "tieline-model",
            "tieline-proto",
        ],
    ),
    ("xtask", &["dataplane-common", "ebpf-toolchain"]),
    ("tieline-lab", &["dataplane-common"]),
    (
        "tieline-tests-prog-run",
        &["dataplane-common", "dataplane-user", "tieline-lab"],
    ),
    (
        "tieline-tests-netns",
        &[
            "dataplane-common",
            "dataplane-user",
            "tieline-lab",
            "tieline-proto",
        ],
    ),
    ("tieline-bench-ebpf", &["dataplane-common"]),
    (
        "tieline-bench",
        &[
            "dataplane-common",
            "dataplane-user",
            "ebpf-toolchain",
            "tieline-lab",
            "tieline-model",
            "tieline-proto",
            "tieline-registry",
            "tieline-store",
        ],
    ),
];

/// Crates of pure logic: no IO, no clock, no runtime.
const PURE: &[&str] = &[
    "dataplane-common",
    "tieline-model",
    "tieline-planner",
    "tieline-registry",
];

/// What brings IO, a clock or a runtime.
const IMPURE: &[&str] = &[
    "async-trait",
    "axum",
    "hyper",
    "hyper-util",
    "netlink-sys",
    "nix",
    "rand",
    "redb",
    "tokio",
    "tonic",
    "tower",
];

/// The kernel programs carry nothing but layouts, and neither does what they share.
const KERNEL_ALLOWED: &[&str] = &["aya-ebpf", "aya-log-ebpf", "dataplane-common", "network-types"];
const KERNEL: &[&str] = &["dataplane-ebpf", "tieline-bench-ebpf"];

pub(super) fn check(files: &[File]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let manifest: Table = file.text.parse().with_context(|| file.path.clone())?;
        if let Some(name) = manifest
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(Value::as_str)
        {
            violations.extend(check_crate(&file.path, name, &manifest));
        }
    }
    Ok(violations)
}

fn check_crate(path: &str, name: &str, manifest: &Table) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
        let what =
            format!("the crate `{name}` has no row in xtask/src/tidy/arrows.rs: say there what it may know");
        return vec![Violation::new(path, 0, what)];
    };
    let mut refuse = |what: String| violations.push(Violation::new(path, 0, what));
    for dependency in dependencies(manifest) {
        let ours = ALLOWED.iter().any(|(known, _)| *known == dependency);
        if ours && !allowed.contains(&dependency.as_str()) {
            refuse(format!(
                "`{name}` may not know `{dependency}`: arrows between crates point one way"
            ));
        }
        if PURE.contains(&name) && IMPURE.contains(&dependency.as_str()) {
            refuse(format!(
                "`{name}` is pure logic and may not use `{dependency}`: move the IO to a shell around it"
            ));
        }
        if KERNEL.contains(&name) && !KERNEL_ALLOWED.contains(&dependency.as_str()) {
            refuse(format!("kernel programs may not use `{dependency}`"));
        }
    }
    violations
}

/// Names in `dependencies` and `build-dependencies`, for every target.
fn dependencies(manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    let mut collect = |table: &Table| {
        for kind in ["dependencies", "build-dependencies"] {
            if let Some(Value::Table(dependencies)) = table.get(kind) {
                names.extend(dependencies.keys().cloned());
            }
        }
    };
    collect(manifest);
    if let Some(Value::Table(targets)) = manifest.get("target") {
        targets.values().filter_map(Value::as_table).for_each(collect);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn violations(manifest: &str) -> Vec<String> {
        let found = check(&[file("control/planner/Cargo.toml", manifest)]).unwrap();
        found.into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn the_planner_may_know_the_model_and_no_runtime() {
        let good =
            "[package]\nname = \"tieline-planner\"\n[dependencies]\ntieline-model = { workspace = true }\n";
        assert!(violations(good).is_empty());
        let bad = "[package]\nname = \"tieline-planner\"\n[dependencies]\ntokio = \"1\"\n";
        assert!(violations(bad)[0].contains("`tokio`"));
    }

    #[test]
    fn an_arrow_in_the_wrong_direction_is_refused_for_every_target() {
        let bad = "[package]\nname = \"dataplane-common\"\n[target.'cfg(unix)'.dependencies]\ndataplane-user = {}\n";
        assert_eq!(violations(bad).len(), 1);
        let build = "[package]\nname = \"tieline-proto\"\n[build-dependencies]\nxtask = {}\n";
        assert_eq!(violations(build).len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        assert!(violations("[package]\nname = \"new\"\n")[0].contains("no row"));
    }

    #[test]
    fn a_kernel_program_may_not_grow_dependencies() {
        let bad = "[package]\nname = \"dataplane-ebpf\"\n[dependencies]\nserde = \"1\"\n";
        assert!(violations(bad)[0].contains("serde"));
    }

    #[test]
    fn the_table_itself_has_no_cycle() {
        // Remove crates that depend on nothing that is left until none is left.
        let mut left: Vec<_> = ALLOWED.to_vec();
        while !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
            let before = left.len();
            left.retain(|(_, arrows)| arrows.iter().any(|arrow| names.contains(arrow)));
            assert!(left.len() < before, "a cycle among {names:?}");
        }
    }
}
