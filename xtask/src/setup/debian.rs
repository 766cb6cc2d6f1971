//! Debian packages, where this process may install them.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::sh;

/// Whether packages can be installed: Debian, and root.
pub(super) fn can_install() -> bool {
    sh::is_root() && Path::new("/etc/debian_version").is_file() && sh::which("apt-get").is_some()
}

/// Installs packages. The lists are fetched only when they turn out to be missing or stale.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    sh::step(&format!("installing packages: {}", packages.join(" ")), || {
        if sh::run_quietly(&mut apt_install(packages)).is_ok() {
            return Ok(());
        }
        // A foreign source that cannot be reached must not stop the others: only the second installation decides.
        let updated = sh::run_quietly(apt_get().args(["--quiet", "update"]));
        sh::run_quietly(&mut apt_install(packages)).with_context(|| match updated {
            Ok(()) => "apt-get cannot install what is needed".to_owned(),
            Err(error) => format!("apt-get cannot install what is needed, and its update failed: {error:#}"),
        })
    })
}

/// Whether a package of this name can be had.
pub(super) fn is_available(package: &str) -> bool {
    sh::capture(sh::command("apt-cache").args(["--quiet", "show", package]))
        .is_ok_and(|text| !text.is_empty())
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = apt_get();
    command
        .args(["install", "--quiet", "--yes", "--no-install-recommends"])
        .args(packages);
    command
}

fn apt_get() -> Command {
    let mut command = sh::command("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
