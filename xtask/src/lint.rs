//! `lint`: what a reviewer should not have to say.

use std::path::PathBuf;

use anyhow::{Result, bail};
use ebpf_toolchain::{Lint, Program};

use crate::{setup, sh, workspace};

/// Which checks.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Leave out cargo-deny, which takes some minutes to build the first time
    #[arg(long)]
    no_deny: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // All of them run, so that one round shows everything.
    let mut failed = Vec::new();
    let mut check = |name: &'static str, work: fn() -> Result<()>| {
        if let Err(error) = sh::step(name, work) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    };
    check("rustfmt", format);
    setup::ensure(if args.no_deny {
        setup::Need::LintOnly
    } else {
        setup::Need::Lint
    })?;
    check("clippy, host", clippy_host);
    check("clippy, kernel programs", || {
        clippy_kernel(Program::dataplane(&[]))
    });
    check("clippy, kernel programs with `trace`", || {
        clippy_kernel(Program::dataplane(&["trace"]))
    });
    check("clippy, kernel programs of the benchmarks", || {
        clippy_kernel(BENCH)
    });
    check("kernel programs compile with `trace`", compile_with_trace);
    check("documentation", documentation);
    if !args.no_deny {
        check("licences, sources and bans", deny);
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} of the checks failed: {}", failed.len(), failed.join(", "))
}

fn format() -> Result<()> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy_host() -> Result<()> {
    sh::run(sh::cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--features=dataplane-user/fake",
        "--",
        "--deny=warnings",
    ]))
}

/// The peers that the benchmarks bring themselves.
const BENCH: Program<'_> = Program {
    package: "tieline-bench-ebpf",
    binary: "tieline-bench-ebpf",
    features: &[],
    object_variable: "TIELINE_BENCH_EBPF_OBJECT",
};

fn clippy_kernel(program: Program<'_>) -> Result<()> {
    match ebpf_toolchain::lint_object(workspace::root(), &kernel_target_dir(), program)? {
        Lint::Clean => {}
        Lint::Prebuilt => eprintln!("    skipped: the object is prebuilt, nothing is compiled here"),
        Lint::NoClippy => {
            bail!("the compiler of the kernel programs has no clippy beside it: `cargo xtask setup --lint`")
        }
    }
    Ok(())
}

/// Without `trace` every build compiles them.
fn compile_with_trace() -> Result<()> {
    ebpf_toolchain::build_object(
        workspace::root(),
        &kernel_target_dir(),
        Program::dataplane(&["trace"]),
    )?;
    Ok(())
}

/// One for all of them: they share the macros that run on the host.
fn kernel_target_dir() -> PathBuf {
    workspace::target_dir().join("kernel-lint")
}

fn documentation() -> Result<()> {
    let mut cargo = sh::cargo();
    cargo
        .args([
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env(
            "RUSTDOCFLAGS",
            "--deny warnings --allow rustdoc::private-intra-doc-links",
        );
    sh::run(&mut cargo)
}

fn deny() -> Result<()> {
    // Advisories need a database from the network; they are checked by `cargo deny check advisories` where it is.
    sh::run(sh::command(setup::cargo_deny()).args(["check", "bans", "licenses", "sources"]))
}
