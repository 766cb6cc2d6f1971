//! What an agent is told at its start.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use dataplane_common::limits::{DEFAULT_MAX_WIRES, MAX_WIRES};

use super::error::ConfigError;
use super::resolvers::FOLDER;
use crate::loader::{self, Backend};

/// Where an agent finds what it needs. Every path can be set, so that several nodes fit on one machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name, unique below one control.
    pub node: String,
    /// The local API's unix socket.
    pub socket: PathBuf,
    /// Where control listens.
    pub control: ControlAddress,
    /// The mount point of the bpffs that keeps the pins.
    pub bpffs: PathBuf,
    /// A folder of this agent alone; two agents cannot share it.
    pub state_dir: PathBuf,
    /// How many wires the node's tables hold.
    pub max_wires: u32,
    /// Which way the programs are attached.
    pub attach: Backend,
    /// Send an event for each drop and each n-th forwarded frame; 0: none.
    pub event_sample: u32,
    /// How long between two full comparisons of plan and kernel when nothing else asks for one.
    pub resync_interval: Duration,
    /// Files in which the operator names workloads and their labels.
    pub workloads: Vec<PathBuf>,
    /// A folder with a file for each pod of the node.
    pub pod_metadata: Option<PathBuf>,
    /// The folder of the namespaces' `resolv.conf`.
    pub resolver_dir: PathBuf,
}

impl Config {
    /// A node with this name and the default places.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            socket: PathBuf::from("/run/tieline/agent.sock"),
            control: ControlAddress::default(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            state_dir: PathBuf::from("/var/lib/tieline/agent"),
            max_wires: DEFAULT_MAX_WIRES,
            attach: Backend::Auto,
            event_sample: 0,
            resync_interval: Duration::from_secs(15),
            workloads: Vec::new(),
            pod_metadata: None,
            resolver_dir: PathBuf::from(FOLDER),
        }
    }

    /// What the datapath is told.
    pub(super) fn loader(&self) -> loader::Config {
        loader::Config {
            node: self.node.clone(),
            bpffs: self.bpffs.clone(),
            max_wires: self.max_wires,
            event_sample: self.event_sample,
            probe: true,
            backend: self.attach,
        }
    }

    /// Refuses what could not work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !is_node_name(&self.node) {
            return Err(ConfigError::Node {
                value: self.node.clone(),
            });
        }
        if !(1..=MAX_WIRES).contains(&self.max_wires) {
            return Err(ConfigError::MaxWires {
                value: self.max_wires,
            });
        }
        if self.resync_interval < MIN_RESYNC_INTERVAL {
            return Err(ConfigError::ResyncInterval {
                value: self.resync_interval,
            });
        }
        Ok(())
    }
}

/// A full pass reads every interface and map entry of ours; more often than this it would only heat the machine.
const MIN_RESYNC_INTERVAL: Duration = Duration::from_millis(100);
/// The longest node name: that of a DNS subdomain (RFC 1123), as Kubernetes has it.
const MAX_NODE_NAME_LEN: usize = 253;

fn is_node_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NODE_NAME_LEN
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|&b| inner(b))
}

/// Where control listens: `unix:///PATH` or `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddress(String);

impl Default for ControlAddress {
    fn default() -> Self {
        Self("unix:///run/tieline/control.sock".to_owned())
    }
}

impl FromStr for ControlAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refused = || ConfigError::ControlAddress {
            value: text.to_owned(),
        };
        let valid = match text.split_once("://") {
            Some(("unix", path)) => path.starts_with('/') && path.len() > 1,
            Some(("http", authority)) => {
                let uri: tonic::codegen::http::Uri = text.parse().map_err(|_| refused())?;
                uri.port_u16().is_some() && !authority.contains('/')
            }
            _ => false,
        };
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_listens_on_a_socket_or_a_port() {
        for good in [
            "unix:///run/tieline/control.sock",
            "http://127.0.0.1:9000",
            "http://[::1]:9000",
            "http://control:9000",
        ] {
            assert_eq!(good.parse::<ControlAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "unix://",
            "unix:///",
            "unix://relative",
            "/run/x",
            "http://host",
            "http://h:1/path",
            "https://h:1",
            "ftp://h:1",
        ] {
            let error = bad.parse::<ControlAddress>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_node_is_named_like_a_host() {
        for good in ["a", "node-1", "node-1.example", "7"] {
            Config::new(good).validate().unwrap();
        }
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "ä", &"a".repeat(254)] {
            assert!(
                matches!(Config::new(bad).validate(), Err(ConfigError::Node { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn table_sizes_out_of_range_are_refused() {
        for bad in [0, MAX_WIRES + 1] {
            let config = Config {
                max_wires: bad,
                ..Config::new("n")
            };
            assert_eq!(config.validate(), Err(ConfigError::MaxWires { value: bad }));
        }
    }
}
