//! Connections to the agent and to control, with errors that say which command starts them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use crate::error::Failure;

/// Longest wait for a connection. A unix socket answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Who is being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The node's agent.
    Agent,
    /// The control plane.
    Control,
}

impl Server {
    /// The command that starts it alone.
    pub(crate) const fn start_command(self) -> &'static str {
        match self {
            Self::Agent => "tieline agent",
            Self::Control => "tieline control",
        }
    }

    /// The flag that says where it listens.
    pub(crate) const fn flag(self) -> &'static str {
        match self {
            Self::Agent => "--socket",
            Self::Control => "--control",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "the agent",
            Self::Control => "control",
        })
    }
}

/// Where a server listens: `unix://PATH`, an absolute path, or `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// Why a text is not an [`Address`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    /// No known form.
    #[error("'{0}' is not an address: write unix:///path/to.sock, /path/to.sock or http://HOST:PORT")]
    Form(String),
    /// `sun_path` is limited by the kernel.
    #[error("the socket path '{path}' has {length} bytes, the kernel allows 107: choose a shorter --run-dir")]
    TooLong {
        /// The path.
        path: String,
        /// Its length in bytes.
        length: usize,
    },
}

/// `sizeof(sockaddr_un.sun_path)` less the terminating zero.
const MAX_SOCKET_PATH: usize = 107;

impl Address {
    /// The socket at this path.
    pub(crate) fn unix(path: &Path) -> Result<Self, AddressError> {
        let text = path.display().to_string();
        if text.len() > MAX_SOCKET_PATH {
            return Err(AddressError::TooLong {
                length: text.len(),
                path: text,
            });
        }
        Ok(Self::Unix(path.to_owned()))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        if let Some(host) = text.strip_prefix("http://") {
            let host = host.trim_end_matches('/');
            let (name, port) = host.rsplit_once(':').ok_or_else(form)?;
            if name.is_empty() || port.parse::<u16>().is_err() {
                return Err(form());
            }
            return Ok(Self::Tcp(host.to_owned()));
        }
        let path = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
            .unwrap_or(text);
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(form());
        }
        Self::unix(Path::new(path))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "http://{host}"),
        }
    }
}

/// Opens a channel, and says what to start if nobody listens.
pub(crate) async fn connect(server: Server, address: &Address) -> Result<Channel, Failure> {
    let unreachable = |source| Failure::Unreachable {
        server,
        address: address.clone(),
        source,
    };
    // Tried once by hand: the channel's own error hides the operating system's reason.
    let probe = async {
        match address {
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
            Address::Tcp(host) => TcpStream::connect(host).await.map(drop),
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, probe)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
        .map_err(unreachable)?;
    channel(address)
        .await
        .map_err(|source| unreachable(io::Error::other(source)))
}

async fn channel(address: &Address) -> Result<Channel, tonic::transport::Error> {
    match address {
        Address::Unix(path) => {
            let path = path.clone();
            // The URI only fills the HTTP/2 authority; the connector ignores it.
            Endpoint::from_static("http://localhost")
                .connect_with_connector(tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                }))
                .await
        }
        Address::Tcp(host) => Endpoint::from_shared(format!("http://{host}"))?.connect().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("unix:///run/tieline/agent.sock", "unix:///run/tieline/agent.sock"),
            ("/run/x.sock", "unix:///run/x.sock"),
            ("http://[::1]:50051/", "http://[::1]:50051"),
            ("http://node-1:7000", "http://node-1:7000"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms() {
        for text in [
            "",
            "run/x.sock",
            "unix://",
            "unix://x",
            "http://",
            "http://host",
            "http://:1",
            "https://a:1",
            "/run/",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(
                error.to_string().contains("unix:///path/to.sock"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_socket_path_longer_than_the_kernel_takes_is_refused() {
        let long = format!("/{}", "x".repeat(107));
        assert!(matches!(
            long.parse::<Address>(),
            Err(AddressError::TooLong { length: 108, .. })
        ));
    }
}
