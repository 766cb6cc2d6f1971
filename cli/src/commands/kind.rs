//! Kinds of objects and their short names.

use clap::ValueEnum;

/// What `get`, `describe` and `delete` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// NetworkServices
    #[value(name = "networkservices", aliases = ["networkservice", "services", "service", "ns"])]
    NetworkService,
    /// NetworkServiceEndpoints
    #[value(name = "endpoints", aliases = ["endpoint", "networkserviceendpoints", "networkserviceendpoint", "nse"])]
    Endpoint,
    /// NetworkServiceWirings
    #[value(name = "networkservicewirings", aliases = ["networkservicewiring", "wirings", "wiring", "nsw"])]
    Wiring,
    /// Connections: vWires as control planned them
    #[value(name = "connections", aliases = ["connection", "conn"])]
    Connection,
    /// Nodes and their sessions
    #[value(name = "nodes", aliases = ["node"])]
    Node,
    /// Wires of this node with the kernel's counters
    #[value(name = "wires", aliases = ["wire"])]
    Wire,
}

impl Kind {
    /// One of them, as a person types it.
    pub(crate) const fn singular(self) -> &'static str {
        match self {
            Self::NetworkService => "networkservice",
            Self::Endpoint => "endpoint",
            Self::Wiring => "networkservicewiring",
            Self::Connection => "connection",
            Self::Node => "node",
            Self::Wire => "wire",
        }
    }
}

/// The kinds and short names, for help.
pub(crate) const KINDS_HELP: &str = "\
Kinds (short names):
  networkservices (ns)   endpoints (nse)   networkservicewirings (nsw)   connections (conn)   nodes   wires";
