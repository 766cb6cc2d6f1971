//! The addresses: a unix socket for this machine, and a loopback TCP port.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::error::ControlError;

/// A bound unix socket whose file goes with it, unless somebody has replaced it meanwhile.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| found.dev() == self.device && found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(socket = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Binds the socket for its owner alone. A file left by a control that was killed is replaced; one that answers is not.
///
/// It is bound under a temporary name, given its mode, and then moved: nobody can connect in between.
pub(crate) fn unix(path: &Path) -> Result<(UnixListener, SocketFile), ControlError> {
    let failed = |source: io::Error| ControlError::Socket {
        path: path.to_path_buf(),
        source,
    };
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    refuse_if_taken(path)?;
    let staged = staged_name(path);
    remove_if_there(&staged).map_err(failed)?;
    let listener = UnixListener::bind(&staged).map_err(failed)?;
    let publish = || {
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o600))?;
        let made = fs::symlink_metadata(&staged)?;
        fs::rename(&staged, path)?;
        Ok(SocketFile {
            path: path.to_path_buf(),
            device: made.dev(),
            inode: made.ino(),
        })
    };
    match publish() {
        Ok(file) => Ok((listener, file)),
        Err(error) => {
            // The first error is the one to report.
            drop(fs::remove_file(&staged));
            Err(failed(error))
        }
    }
}

/// Binds a loopback port.
pub(crate) async fn tcp(address: SocketAddr) -> Result<TcpListener, ControlError> {
    if !address.ip().is_loopback() {
        return Err(ControlError::NotLoopback { address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ControlError::PortTaken { address },
            _ => ControlError::Tcp { address, source },
        })
}

fn refuse_if_taken(path: &Path) -> Result<(), ControlError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ControlError::Socket {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    if !found.file_type().is_socket() {
        return Err(ControlError::NotASocket {
            path: path.to_path_buf(),
        });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::SocketInUse {
            path: path.to_path_buf(),
        }),
        // Nobody listens: what a control that was killed leaves behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(ControlError::Socket {
            path: path.to_path_buf(),
            source,
        }),
    }
}

fn staged_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("tl-control-").tempdir().unwrap()
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_goes_with_its_guard() {
        let directory = directory();
        let path = directory.path().join("deep/control.sock");
        let (listener, file) = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = directory();
        let path = directory.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed control leaves its file");
        let (_listener, _file) = unix(&path).unwrap();
        let error = unix(&path).unwrap_err();
        let sentence = format!("another control is already listening on {}; ", path.display());
        assert!(error.to_string().starts_with(&sentence), "{error}");
    }

    #[tokio::test]
    async fn a_replaced_socket_is_not_removed_by_the_one_before() {
        let directory = directory();
        let path = directory.path().join("control.sock");
        let (listener, file) = unix(&path).unwrap();
        drop(listener);
        let (_successor, _file) = unix(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(unix(&path), Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn only_free_loopback_ports_are_taken() {
        let outside = tcp("192.0.2.1:0".parse().unwrap()).await.unwrap_err();
        assert!(outside.to_string().contains("only loopback"), "{outside}");
        let any = tcp("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(matches!(any, ControlError::NotLoopback { .. }));
        let first = tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = tcp(first.local_addr().unwrap()).await.unwrap_err();
        assert!(matches!(taken, ControlError::PortTaken { .. }), "{taken}");
    }
}
