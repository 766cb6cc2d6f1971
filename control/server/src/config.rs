//! What an operator may set.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tieline_model::{Invalid, RegistryDomain};
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

/// Another registry domain: `NAME`, which may ask for what is registered here, or `NAME=ADDRESS`, which may and is asked too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name.
    pub domain: RegistryDomain,
    /// Where its control listens, `unix:///PATH` or `http://HOST:PORT`. `None`: it is not asked.
    pub address: Option<String>,
}

impl fmt::Display for PeerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{}={address}", self.domain),
            None => write!(f, "{}", self.domain),
        }
    }
}

impl FromStr for PeerConfig {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (name, Some(address)),
            None => (text, None),
        };
        let known = |address: &&str| {
            ["unix:///", "http://"]
                .iter()
                .any(|scheme| address.starts_with(scheme))
        };
        if let Some(bad) = address.filter(|address| !known(address)) {
            let rule = "write NAME=unix:///PATH or NAME=http://HOST:PORT, where the other control listens";
            return Err(Invalid::new("peer", bad, rule));
        }
        Ok(Self {
            domain: RegistryDomain::parse("peer", name)?,
            address: address.map(ToOwned::to_owned),
        })
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
    /// The other registry domains that it knows. None by default: domains ignore each other.
    pub peers: Vec<PeerConfig>,
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
            peers: Vec::new(),
            wire_deadline: Duration::from_secs(10),
            max_waiting: 16_384,
            shutdown_deadline: Duration::from_secs(5),
        })
    }
}
