//! A file that is read again when it has changed, and keeps its last good content when it turns bad.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

/// The largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;
/// Whoever may write the file decides about labels: nobody but its owner may.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// A file that was changed this short a time ago may change again without its times showing it.
const GRAIN: Duration = Duration::from_millis(50);

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` when the next look cannot rely on it.
    fn of(metadata: &Metadata) -> Option<Self> {
        let age = metadata
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        age.filter(|age| *age > GRAIN)?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// A file and what it says.
#[derive(Debug)]
pub(super) struct Watched<T> {
    path: PathBuf,
    stamp: Option<Stamp>,
    good: Option<T>,
    error: String,
}

impl<T> Watched<T> {
    /// Nothing is read yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            stamp: None,
            good: None,
            error: "it has not been read yet".to_owned(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it said when it was last good.
    pub(super) fn good(&self) -> Option<&T> {
        self.good.as_ref()
    }

    /// What is wrong with it now; empty if nothing is.
    pub(super) fn error(&self) -> &str {
        &self.error
    }

    /// Reads the file if it has changed since the last look.
    pub(super) fn look(&mut self, read: impl Fn(&Path, &str) -> Result<T, String>) {
        let stamp = std::fs::metadata(&self.path)
            .ok()
            .and_then(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && stamp == self.stamp {
            return;
        }
        let (stamp, result) = match open(&self.path) {
            Ok((stamp, text)) => (stamp, read(&self.path, &text)),
            Err(error) => (None, Err(error)),
        };
        self.stamp = stamp;
        match result {
            Ok(good) => {
                if !self.error.is_empty() {
                    info!(path = %self.path.display(), "read");
                }
                self.good = Some(good);
                self.error.clear();
            }
            Err(error) if error != self.error => {
                let path = self.path.display();
                if self.good.is_some() {
                    warn!(%path, error, "the file has turned bad: what it said before stays in force");
                } else {
                    warn!(%path, error, "the file cannot be used: whom it may be about is refused");
                }
                self.error = error;
            }
            Err(_) => {}
        }
    }
}

/// The file's text, if nobody could have slipped it in.
fn open(path: &Path) -> Result<(Option<Stamp>, String), String> {
    let said = |error: io::Error| error.to_string();
    let mut file = File::open(path).map_err(said)?;
    let metadata = file.metadata().map_err(said)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(format!(
            "user {owner} owns it and could attest what they like: give it to root"
        ));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(
            "others than its owner may write it and could attest what they like: chmod go-w".to_owned(),
        );
    }
    if metadata.len() > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes: split it"));
    }
    let mut text = String::new();
    file.by_ref()
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(said)?;
    Ok((Stamp::of(&metadata), text))
}
