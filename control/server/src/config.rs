//! What an operator may set.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tieline_registry::{Refusal, RegistryConfig};
use tieline_store::Store;

/// Where control keeps its state.
#[derive(Clone)]
pub enum StoreConfig {
    /// In this file, by redb.
    Redb(PathBuf),
    /// In memory: everything is forgotten when control stops. For trials and tests.
    Memory,
    /// In a store that is open already.
    Open(Arc<dyn Store>),
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redb(path) => write!(f, "redb {}", path.display()),
            Self::Memory => f.write_str("memory"),
            Self::Open(store) => f.write_str(&store.describe()),
        }
    }
}

/// Everything that control is set up with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unix socket, mode 0600. `None`: none.
    pub unix: Option<PathBuf>,
    /// A loopback TCP address. `None`: none. Others are refused until peers are authenticated.
    pub tcp: Option<SocketAddr>,
    /// Where the state is kept.
    pub store: StoreConfig,
    /// Prefixes, leases and MTU.
    pub registry: RegistryConfig,
    /// How long a Request waits for its node to report the wire.
    pub wire_deadline: Duration,
    /// How many calls may wait for nodes at once; further ones are refused.
    pub max_waiting: usize,
    /// How long open calls may take to end when control stops.
    pub shutdown_deadline: Duration,
}

impl Config {
    /// The defaults: `/run/tieline/control.sock`, no TCP, `/var/lib/tieline/control.redb`, the registry's defaults, 10 s for a
    /// wire, 16,384 waiting calls, 5 s to stop.
    pub fn new() -> Result<Self, Refusal> {
        Ok(Self {
            unix: Some(PathBuf::from("/run/tieline/control.sock")),
            tcp: None,
            store: StoreConfig::Redb(PathBuf::from("/var/lib/tieline/control.redb")),
            registry: RegistryConfig::new()?,
            wire_deadline: Duration::from_secs(10),
            max_waiting: 16_384,
            shutdown_deadline: Duration::from_secs(5),
        })
    }
}
