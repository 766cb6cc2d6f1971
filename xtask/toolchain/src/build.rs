//! Building the object.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    ENV_OBJECT, TARGET,
    find::{Compiler, MissingToolchain, Toolchain, find_for},
};

/// The object was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No compiler or no linker.
    #[error(transparent)]
    Missing(#[from] MissingToolchain),
    /// The compiler could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// What was to run.
        program: String,
        /// Why it did not.
        source: io::Error,
    },
    /// The compiler reported errors, which it has printed.
    #[error("the kernel programs do not compile (command: {command})")]
    Compile {
        /// The command line, to repeat it by hand.
        command: String,
    },
}

/// Nul-like separator of `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_SEPARATOR: &str = "\u{1f}";

/// A crate of the workspace that compiles to one BPF object.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The crate's package name.
    pub package: &'a str,
    /// The name of its binary, which is that of the finished object.
    pub binary: &'a str,
    /// Its features to switch on.
    pub features: &'a [&'a str],
    /// Environment variable that may name a prebuilt object; nothing is compiled then.
    pub object_variable: &'a str,
}

impl<'a> Program<'a> {
    /// Tieline's own programs.
    #[must_use]
    pub const fn dataplane(features: &'a [&'a str]) -> Self {
        Self {
            package: "dataplane-ebpf",
            binary: "tieline-ebpf",
            features,
            object_variable: ENV_OBJECT,
        }
    }
}

/// Builds `program` of the workspace at `workspace` into `target_dir` and returns the object's path.
pub fn build_object(
    workspace: &Path,
    target_dir: &Path,
    program: Program<'_>,
) -> Result<PathBuf, BuildError> {
    let (compiler, linker) = match find_for(program.object_variable)? {
        Toolchain::Prebuilt(object) => return Ok(object),
        Toolchain::Compile { compiler, linker } => (compiler, linker),
    };
    let mut command = compiler_command(&compiler, program.binary);
    command
        .args(["build", "--quiet"])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    what_to_build(&mut command, workspace, target_dir, program);
    run(command)?;
    Ok(target_dir.join(TARGET).join("release").join(program.binary))
}

/// What [`lint_object`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// Clippy found nothing.
    Clean,
    /// Nothing is compiled here: the object is prebuilt.
    Prebuilt,
    /// The compiler has no clippy beside it.
    NoClippy,
}

/// Runs clippy on `program` as it is compiled for the kernel; any warning is an error.
pub fn lint_object(workspace: &Path, target_dir: &Path, program: Program<'_>) -> Result<Lint, BuildError> {
    let compiler = match find_for(program.object_variable)? {
        Toolchain::Prebuilt(_) => return Ok(Lint::Prebuilt),
        Toolchain::Compile { compiler, .. } => compiler,
    };
    let Some(mut command) = clippy_command(&compiler, program.binary) else {
        return Ok(Lint::NoClippy);
    };
    what_to_build(&mut command, workspace, target_dir, program);
    command.args(["--", "--deny", "warnings"]);
    run(command)?;
    Ok(Lint::Clean)
}

fn what_to_build(command: &mut Command, workspace: &Path, target_dir: &Path, program: Program<'_>) {
    command
        .args(["--release", "--locked"])
        .args(["--package", program.package, "--bin", program.binary])
        .args(["--target", TARGET])
        .args(["--features", &program.features.join(",")])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", rustc_flags().join(FLAG_SEPARATOR));
    // A build script inherits settings that are meant for the host build.
    for name in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
}

fn compiler_command(compiler: &Compiler, binary: &str) -> Command {
    match compiler {
        Compiler::PrecompiledCore(rustc) => {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", unstable_crates(binary));
            command
        }
        Compiler::NightlyBuildStd => {
            let mut command = Command::new("rustup");
            command
                .args(["run", "nightly", "cargo", "-Zbuild-std=core"])
                .env_remove("RUSTC");
            command
        }
    }
}

/// Clippy reads what its own release of the compiler wrote: it must be the one installed beside that compiler.
fn clippy_command(compiler: &Compiler, binary: &str) -> Option<Command> {
    match compiler {
        Compiler::PrecompiledCore(rustc) => {
            let folder = rustc.parent().filter(|folder| folder.is_absolute())?;
            let clippy = folder.join("cargo-clippy");
            // A `rustup` proxy of that name would start another release.
            if !clippy.is_file() || !folder.join("clippy-driver").is_file() {
                return None;
            }
            let mut command = Command::new(clippy);
            command
                .args(["clippy", "--quiet"])
                .env("CARGO", folder.join("cargo"))
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", unstable_crates(binary));
            Some(command)
        }
        Compiler::NightlyBuildStd => {
            let mut command = Command::new("rustup");
            command
                .args(["run", "nightly", "cargo", "clippy", "--quiet", "-Zbuild-std=core"])
                .env_remove("RUSTC");
            Some(command)
        }
    }
}

/// Crates that may use unstable features of `core`; every other one stays on stable.
fn unstable_crates(binary: &str) -> String {
    format!("aya_ebpf,{}", binary.replace('-', "_"))
}

fn rustc_flags() -> [&'static str; 5] {
    [
        "-Cdebuginfo=2", // becomes BTF, and source lines in verifier messages
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3", // less code and fewer verified instructions than v1; every supported kernel has it
        "-Cpanic=abort",
        "--cfg=bpf_target_arch=\"x86_64\"",
    ]
}

fn run(mut command: Command) -> Result<(), BuildError> {
    let status = command.status().map_err(|source| BuildError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(BuildError::Compile {
            command: format!("{command:?}"),
        })
    }
}
