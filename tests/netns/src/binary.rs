//! The program under test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, ensure};

/// Environment variable: a built `tieline`, for machines without a compiler.
const ENV_BINARY: &str = "TIELINE_BIN";

/// The `tieline` program: that of `TIELINE_BIN`, else built from this workspace, once per test process.
pub(crate) fn tieline() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn find() -> Result<PathBuf> {
    if let Some(given) = env::var_os(ENV_BINARY) {
        let path = PathBuf::from(given);
        ensure!(path.is_file(), "{ENV_BINARY} {} is not a file", path.display());
        return Ok(path);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "tieline",
            "--bin",
            "tieline",
            "--manifest-path",
        ])
        .arg(&manifest)
        .status()
        .context("run cargo: without a compiler, set TIELINE_BIN")?;
    ensure!(status.success(), "building tieline failed: {status}");
    // This test lies in TARGET/PROFILE/deps, the program in TARGET/debug.
    let test = env::current_exe()?;
    let target = test
        .ancestors()
        .nth(3)
        .context("the test lies in a target folder")?;
    let path = target.join("debug/tieline");
    ensure!(
        path.is_file(),
        "{} is missing although it was built",
        path.display()
    );
    Ok(path)
}
