//! Looking for a compiler and a linker.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{ENV_CACHE, ENV_LINKER, ENV_OBJECT, ENV_RUSTC, LINKER_VERSION, LLVM_MAJOR, TARGET};

/// What the kernel programs are built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Nothing is built: the object exists.
    Prebuilt(PathBuf),
    /// Compile and link.
    Compile {
        /// Which compiler.
        compiler: Compiler,
        /// Path of `bpf-linker`.
        linker: PathBuf,
    },
}

/// A compiler that can target BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A `rustc` that ships `core` for the target.
    PrecompiledCore(PathBuf),
    /// `rustup run nightly cargo -Z build-std=core`.
    NightlyBuildStd,
}

/// No way to build the kernel programs was found.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot build the kernel programs: {problem}\nrun `cargo xtask setup`, which installs what is missing or says how; or set {ENV_OBJECT} to a prebuilt object"
)]
pub struct MissingToolchain {
    /// What is missing.
    pub problem: String,
}

/// Finds a toolchain for Tieline's own programs.
pub fn find() -> Result<Toolchain, MissingToolchain> {
    find_for(ENV_OBJECT)
}

/// Finds a toolchain, or the prebuilt object that the environment variable `object_variable` names.
pub fn find_for(object_variable: &str) -> Result<Toolchain, MissingToolchain> {
    if let Some(object) = env::var_os(object_variable).map(PathBuf::from) {
        return if object.is_file() {
            Ok(Toolchain::Prebuilt(object))
        } else {
            Err(MissingToolchain {
                problem: format!("{object_variable}={} is not a file", object.display()),
            })
        };
    }
    let compiler = compiler()?;
    let linker = linker()?;
    Ok(Toolchain::Compile { compiler, linker })
}

/// Finds a compiler.
pub fn compiler() -> Result<Compiler, MissingToolchain> {
    let candidates = [
        env::var_os(ENV_RUSTC),
        Some("/usr/bin/rustc".into()),
        env::var_os("RUSTC"),
        Some("rustc".into()),
    ];
    for rustc in candidates.into_iter().flatten().map(PathBuf::from) {
        if has_bpf_core(&rustc) {
            return Ok(Compiler::PrecompiledCore(rustc));
        }
    }
    if nightly_has_source() {
        return Ok(Compiler::NightlyBuildStd);
    }
    Err(MissingToolchain {
        problem: format!(
            "no rustc with a precompiled core for {TARGET}, and no nightly toolchain with rust-src"
        ),
    })
}

/// Whether this `rustc` ships a precompiled `core` for the BPF target.
#[must_use]
pub fn has_bpf_core(rustc: &Path) -> bool {
    let Some(libdir) = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
    else {
        return false;
    };
    fs::read_dir(libdir.trim()).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|e| e.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn nightly_has_source() -> bool {
    output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"])).is_some_and(
        |sysroot| {
            Path::new(sysroot.trim())
                .join("lib/rustlib/src/rust/library/core")
                .is_dir()
        },
    )
}

/// Finds `bpf-linker`.
pub fn linker() -> Result<PathBuf, MissingToolchain> {
    let missing = |problem| MissingToolchain { problem };
    if let Some(linker) = env::var_os(ENV_LINKER).map(PathBuf::from) {
        let wrong = format!("{ENV_LINKER}={} is not a file", linker.display());
        return linker.is_file().then_some(linker).ok_or_else(|| missing(wrong));
    }
    let cached = linker_in_cache();
    if cached.is_file() {
        return Ok(cached);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
        .ok_or_else(|| missing(format!("bpf-linker {LINKER_VERSION} was not found")))
}

/// The folder for downloads and built tools that outlive `target/`.
#[must_use]
pub fn cache_dir() -> PathBuf {
    let from = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from(ENV_CACHE)
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("tieline")))
        .or_else(|| from("HOME").map(|dir| dir.join(".cache/tieline")))
        .unwrap_or_else(|| env::temp_dir().join("tieline-cache"))
}

/// Where `xtask setup` puts the pinned linker.
#[must_use]
pub fn linker_in_cache() -> PathBuf {
    cache_dir()
        .join(format!("bpf-linker-{LINKER_VERSION}-llvm{LLVM_MAJOR}"))
        .join("bin/bpf-linker")
}

/// The command's standard output if it ran and succeeded.
fn output(command: &mut Command) -> Option<String> {
    let out = command.stderr(Stdio::null()).output().ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}
