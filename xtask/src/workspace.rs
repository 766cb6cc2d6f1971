//! The tree: its root, its tracked files, its target folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    // Known when xtask was compiled; `cargo run` recompiles it when the tree has moved.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// Cargo's output folder.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A file of the tree, by its path from the root.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// The text.
    pub text: String,
}

/// Every text file that git tracks or would track, sorted by path.
pub(crate) fn files() -> Result<Vec<File>> {
    // The tree may belong to another user, as in CI containers.
    let listed = crate::sh::capture(crate::sh::command("git").args([
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("the tree's files are listed by git: run this in a clone")?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|p| !p.is_empty()) {
        // A path that git lists and that is gone was just deleted; one that is not UTF-8 is not text.
        if let Ok(text) = fs::read_to_string(root().join(path)) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Reads one file of the tree.
pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// Writes one file of the tree, if that changes it.
pub(crate) fn write(path: &str, text: &str) -> Result<()> {
    let full = root().join(path);
    if fs::read_to_string(&full).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = full.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(&full, text).with_context(|| format!("cannot write {path}"))
}
