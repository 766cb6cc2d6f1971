//! Opening the file, and saying clearly why not.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ::redb::{Database, DatabaseError, StorageError};

use super::tables::{FORMAT, RedbTables};
use crate::error::OpenError;
use crate::tables::Tables as _;
use crate::types::Revision;

/// The layout of the tables in the file. Raised with every change that an older release would misread.
pub const FORMAT_VERSION: u64 = 1;

/// The file's pages that redb may keep in memory. The state of a node or a small cluster fits.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Opens or makes the file, and checks that this release can read it.
pub(super) fn open(path: &Path) -> Result<(Database, Revision), OpenError> {
    let file = open_file(path)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_file(file)
        .map_err(|error| database_error(path, error))?;
    let revision = check_format(path, &database)?;
    Ok((database, revision))
}

fn open_file(path: &Path) -> Result<File, OpenError> {
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
            path: directory.to_path_buf(),
            source,
        })?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| io_error(path, error))
}

fn check_format(path: &Path, database: &Database) -> Result<Revision, OpenError> {
    let corrupt = |error: &dyn std::fmt::Display| OpenError::Corrupt {
        path: path.to_path_buf(),
        detail: error.to_string(),
    };
    let txn = database.begin_write().map_err(|error| corrupt(&error))?;
    let revision = {
        let mut tables = RedbTables::open("", &txn).map_err(|error| corrupt(&error))?;
        match tables.number(FORMAT).map_err(|error| corrupt(&error))? {
            Some(FORMAT_VERSION) => {}
            Some(found) if found > FORMAT_VERSION => {
                return Err(OpenError::NewerFormat {
                    path: path.to_path_buf(),
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            Some(found) => return Err(corrupt(&format_args!("format {found} was never released"))),
            None => tables
                .set_number(FORMAT, FORMAT_VERSION)
                .map_err(|error| corrupt(&error))?,
        }
        tables.revision().map_err(|error| corrupt(&error))?
    };
    txn.commit().map_err(|error| corrupt(&error))?;
    Ok(revision)
}

fn database_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_path_buf();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { path },
        DatabaseError::UpgradeRequired(found) => OpenError::FileFormat { path, found },
        DatabaseError::Storage(StorageError::Io(source)) => io_error(&path, source),
        other => OpenError::Corrupt {
            path,
            detail: other.to_string(),
        },
    }
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Permission { path },
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => OpenError::Corrupt {
            path,
            detail: source.to_string(),
        },
        _ => OpenError::Io { path, source },
    }
}
