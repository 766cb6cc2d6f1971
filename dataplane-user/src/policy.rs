//! Policies of a workload's end, and the name servers that come with it.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::desired::{IfName, Route};

/// Packets of one address family, told apart by what is given, that go by a table of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// The interface that they come in by; `None`: any, and the workload's own packets.
    pub input: Option<IfName>,
    /// Where they come from; never a prefix of length 0, which is anywhere.
    pub from: Option<IpNet>,
    /// Number of their protocol.
    pub protocol: Option<u8>,
    /// The ports that they come from.
    pub src_ports: Option<PortRange>,
    /// The ports that they go to.
    pub dst_ports: Option<PortRange>,
    /// Whether they are of IPv6.
    pub v6: bool,
    /// The routes in the table, in order and each once.
    pub routes: Vec<Route>,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.v6 { "IPv6" } else { "IPv4" })?;
        if let Some(input) = &self.input {
            write!(f, " in by {input}")?;
        }
        if let Some(from) = &self.from {
            write!(f, " from {from}")?;
        }
        if let Some(protocol) = self.protocol {
            write!(f, " protocol {protocol}")?;
        }
        for (which, ports) in [("from", self.src_ports), ("to", self.dst_ports)] {
            if let Some((first, last)) = ports {
                write!(f, " {which} ports {first}-{last}")?;
            }
        }
        let mut separator = ":";
        for Route { prefix, next_hop } in &self.routes {
            write!(f, "{separator} {prefix}")?;
            if let Some(next_hop) = next_hop {
                write!(f, " via {next_hop}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

/// The first and the last port.
pub type PortRange = (u16, u16);

/// Name servers for the resolver of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameServers {
    /// Their addresses.
    pub addresses: Vec<IpAddr>,
    /// Domains that names without a dot are looked for in.
    pub search_domains: Vec<String>,
}
