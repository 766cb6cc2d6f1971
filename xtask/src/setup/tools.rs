//! The programs that are started besides compilers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    setup::{debian, put_in_place},
    sh,
};

/// A program and the Debian package that brings it.
#[derive(Debug)]
pub(super) struct Tool {
    /// Name of the executable.
    pub program: &'static str,
    package: &'static str,
    find: fn(&str) -> Option<PathBuf>,
}

impl Tool {
    const fn new(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            find: sh::which,
        }
    }

    /// Whether it can be started.
    pub(super) fn is_installed(&self) -> bool {
        (self.find)(self.program).is_some()
    }

    /// What to install.
    pub(super) fn packages(&self) -> Vec<&'static str> {
        // The file server for virtual machines moved out of QEMU into a package of its own.
        let own_package = self.program == VIRTIOFSD && debian::is_available(VIRTIOFSD);
        vec![if own_package { VIRTIOFSD } else { self.package }]
    }
}

/// What sends and watches traffic.
pub(super) const TRAFFIC: &[Tool] = &[
    Tool::new("ip", "iproute2"),
    Tool::new("ping", "iputils-ping"),
    Tool::new("iperf3", "iperf3"),
    Tool::new("tcpdump", "tcpdump"),
    Tool::new("ethtool", "ethtool"),
];

/// What checks the sources.
pub(super) const LINT: &[Tool] = &[Tool {
    find: kernel_clippy,
    ..Tool::new("clippy-driver", "rust-web-clippy")
}];

const VIRTIOFSD: &str = "virtiofsd";

/// What boots other kernels.
pub(super) const KERNELS: &[Tool] = &[
    Tool::new("qemu-system-x86_64", "qemu-system-x86"),
    Tool {
        find: |_| virtiofsd(),
        ..Tool::new(VIRTIOFSD, "qemu-system-common")
    },
    Tool {
        find: static_busybox,
        ..Tool::new("busybox", "busybox-static")
    },
    Tool::new("xz", "xz-utils"),
    Tool::new("zstd", "zstd"),
    Tool::new("lz4", "lz4"),
    Tool::new("depmod", "kmod"),
    Tool::new("dpkg", "dpkg"),
];

/// The file server that shows the host's root folder to a virtual machine; it is not in `PATH`.
pub(crate) fn virtiofsd() -> Option<PathBuf> {
    ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"]
        .map(PathBuf::from)
        .into_iter()
        .chain(sh::which(VIRTIOFSD))
        .find(|path| path.is_file())
}

/// A busybox that runs where there are no libraries.
fn static_busybox(name: &str) -> Option<PathBuf> {
    let path = sh::which(name)?;
    let program = fs::read(&path).ok()?;
    let loader = b"/ld-linux";
    let dynamic = program.windows(loader.len()).take(64 * 1024).any(|w| w == loader);
    (!dynamic).then_some(path)
}

/// The clippy beside the compiler of the kernel programs: needed only where that is Debian's, because `rustup`
/// brings its own.
fn kernel_clippy(name: &str) -> Option<PathBuf> {
    match ebpf_toolchain::compiler().ok()? {
        ebpf_toolchain::Compiler::PrecompiledCore(rustc) if rustc.starts_with("/usr/bin") => {
            Some(rustc.with_file_name(name)).filter(|path| path.is_file())
        }
        _ => Some(name.into()),
    }
}

/// The pinned release that reads `deny.toml`.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Where the pinned cargo-deny lies.
pub(crate) fn cargo_deny() -> PathBuf {
    cargo_deny_home().join("bin/cargo-deny")
}

fn cargo_deny_home() -> PathBuf {
    ebpf_toolchain::cache_dir().join(format!("cargo-deny-{CARGO_DENY_VERSION}"))
}

/// Builds cargo-deny once.
pub(super) fn ensure_cargo_deny() -> Result<()> {
    if cargo_deny().is_file() {
        return Ok(());
    }
    cargo_install(
        &cargo_deny_home(),
        &format!("cargo-deny {CARGO_DENY_VERSION} (some minutes, once)"),
        &["cargo-deny", "--version", CARGO_DENY_VERSION],
        &[],
        &[],
    )
}

/// `cargo install` into `home`, which appears only when it is complete.
pub(super) fn cargo_install(
    home: &Path,
    what: &str,
    package: &[&str],
    options: &[&str],
    environment: &[(&str, &str)],
) -> Result<()> {
    sh::step(&format!("building {what}"), || {
        let cache = home.parent().context("the cache is a folder")?;
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let scratch = tempfile::Builder::new().prefix(".building-").tempdir_in(cache)?;
        let root = scratch.path().join("root");
        let mut cargo = sh::cargo();
        cargo
            .args(["install", "--locked", "--quiet", "--root"])
            .arg(&root)
            .args(package)
            .args(options)
            .envs(environment.iter().copied())
            .env("CARGO_TARGET_DIR", scratch.path().join("target"));
        sh::run_quietly(&mut cargo)?;
        put_in_place(&root, home)
    })
}
