//! `setup`: what the other commands need is there afterwards, or the error says how to get it.
//!
//! Idempotent, and quick when nothing is to do: the check starts one process and looks at a few files.

mod debian;
mod tools;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use ebpf_toolchain::{Compiler, ENV_OBJECT, LINKER_VERSION, LLVM_MAJOR, Toolchain};

use tools::Tool;
pub(crate) use tools::{cargo_deny, virtiofsd};

/// What to prepare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what `lint` uses: clippy for the kernel programs, cargo-deny
    #[arg(long)]
    lint: bool,
    /// Also what `kernels` uses: QEMU and what unpacks kernels
    #[arg(long)]
    kernels: bool,
}

/// What a command is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compile.
    Build,
    /// Compile, and send traffic through namespaces.
    Traffic,
    /// Compile, and check the sources.
    Lint,
    /// The same without cargo-deny.
    LintOnly,
    /// Compile, and boot other kernels.
    Kernels,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure(Need::Traffic)?;
    if args.lint {
        ensure(Need::Lint)?;
    }
    if args.kernels {
        ensure(Need::Kernels)?;
    }
    match ebpf_toolchain::find()? {
        Toolchain::Prebuilt(object) => println!("kernel programs: prebuilt, {}", object.display()),
        Toolchain::Compile { compiler, linker } => {
            let compiler = match compiler {
                Compiler::PrecompiledCore(rustc) => format!("{} (precompiled core)", rustc.display()),
                Compiler::NightlyBuildStd => "rustup's nightly (builds core)".to_owned(),
            };
            println!("kernel programs: {compiler}, {}", linker.display());
        }
    }
    Ok(())
}

/// Makes sure of it.
pub(crate) fn ensure(need: Need) -> Result<()> {
    ensure_toolchain()?;
    match need {
        Need::Build => Ok(()),
        Need::Traffic => ensure_tools(tools::TRAFFIC),
        Need::Lint => {
            ensure_tools(tools::LINT)?;
            tools::ensure_cargo_deny()
        }
        Need::LintOnly => ensure_tools(tools::LINT),
        Need::Kernels => ensure_tools(tools::KERNELS),
    }
}

fn ensure_toolchain() -> Result<()> {
    if ebpf_toolchain::find().is_ok() {
        return Ok(());
    }
    if std::env::var_os(ENV_OBJECT).is_some() {
        // Named by the operator: installing a compiler instead would not be what was asked for.
        return ebpf_toolchain::find().map(drop).map_err(Into::into);
    }
    let need_compiler = ebpf_toolchain::compiler().is_err();
    if !debian::can_install() {
        bail!("{}", how_to_install(need_compiler));
    }
    let llvm = format!("llvm-{LLVM_MAJOR}-dev");
    let mut packages = vec![llvm.as_str()];
    if need_compiler {
        packages.extend(["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"]);
    }
    debian::install(&packages).with_context(|| how_to_install(need_compiler))?;
    if ebpf_toolchain::linker().is_err() {
        build_linker().with_context(|| how_to_install(false))?;
    }
    ebpf_toolchain::find().map(drop).map_err(Into::into)
}

/// Builds the pinned linker into the cache; whole or not at all.
fn build_linker() -> Result<()> {
    let finished = ebpf_toolchain::linker_in_cache();
    let home = finished.ancestors().nth(2).context("the cache has folders")?;
    tools::cargo_install(
        home,
        &format!("bpf-linker {LINKER_VERSION} (about a minute)"),
        &["bpf-linker", "--version", LINKER_VERSION, "--no-default-features"],
        &["--features", &format!("llvm-{LLVM_MAJOR}")],
        &[("LLVM_PREFIX", &format!("/usr/lib/llvm-{LLVM_MAJOR}"))],
    )
}

/// What to run where this program cannot install.
fn how_to_install(need_compiler: bool) -> String {
    let mut text =
        String::from("the kernel programs cannot be built here yet. On Debian 12 or newer run, as root:\n\n");
    text.push_str("    cargo xtask setup\n\nElsewhere, with rustup and LLVM's development files:\n\n");
    if need_compiler {
        text.push_str("    rustup toolchain install nightly --component rust-src\n");
    }
    text.push_str(&format!(
        "    cargo install bpf-linker --version {LINKER_VERSION} --locked --no-default-features --features llvm-{LLVM_MAJOR}\n\n"
    ));
    text.push_str(&format!(
        "Or set {ENV_OBJECT} to an object that was built on another machine."
    ));
    text
}

fn ensure_tools(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !tool.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|t| t.program).collect::<Vec<_>>().join(", ");
    let mut packages: Vec<&str> = missing.iter().flat_map(|tool| tool.packages()).collect();
    packages.sort_unstable();
    packages.dedup();
    if !debian::can_install() {
        bail!(
            "not found: {names}. Install them with your package manager; on Debian, as root:\n\n    apt-get install {}",
            packages.join(" ")
        );
    }
    debian::install(&packages)?;
    match tools.iter().find(|tool| !tool.is_installed()) {
        None => Ok(()),
        Some(tool) => bail!(
            "{} is still missing after its package was installed; see the output above",
            tool.program
        ),
    }
}

/// Moves a finished folder into its place; another process may have been faster.
fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(_) if to.exists() => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_name_only_what_is_missing() {
        assert!(how_to_install(true).contains("nightly"));
        assert!(!how_to_install(false).contains("nightly"));
        assert!(how_to_install(false).contains(LINKER_VERSION));
    }

    #[test]
    fn the_slower_of_two_installers_finds_its_work_done() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, target) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("t"));
        for folder in [&a, &b] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("x"), "").unwrap();
        }
        put_in_place(&a, &target).unwrap();
        put_in_place(&b, &target).unwrap();
        assert!(target.join("x").is_file());
    }
}
