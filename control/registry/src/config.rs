//! What an operator may set.

use ipnet::IpNet;
use tieline_model::{Lease, Mtu, RegistryDomain};

use crate::Refusal;

/// What the registry is set up with.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where the addresses come from of services that name no prefixes.
    pub default_prefixes: Vec<IpNet>,
    /// What is never given out, whatever a service says.
    pub excluded_prefixes: Vec<IpNet>,
    /// The longest lifetime of a connection without refresh, and the one of who asks for none.
    pub max_connection_lease: Lease,
    /// The lifetime of a registration that asks for none.
    pub default_endpoint_lease: Lease,
    /// The longest lifetime of a registration without refresh.
    pub max_endpoint_lease: Lease,
    /// How long a node may be silent before what it keeps ends: connections and registrations that live as long as their
    /// workloads are there. Another domain may be silent for as long.
    pub node_lease: Lease,
    /// The name that this registry goes by in others; `None`: it has none, and has nothing of others.
    pub domain: Option<RegistryDomain>,
    /// The MTU of wires that nobody asks another for.
    pub default_mtu: Mtu,
}

impl RegistryConfig {
    /// The defaults: 172.29.0.0/16 and fd74:6c00::/64, connections 10 min, registrations 1 min and at most 24 h, nodes
    /// 5 min, 1500 octets.
    pub fn new() -> Result<Self, Refusal> {
        let prefix = |text: &str| {
            text.parse().map_err(|_| {
                tieline_model::Invalid::new("default_prefixes", text, "a prefix is ADDRESS/LENGTH")
            })
        };
        Ok(Self {
            default_prefixes: vec![prefix("172.29.0.0/16")?, prefix("fd74:6c00::/64")?],
            excluded_prefixes: Vec::new(),
            max_connection_lease: Lease::from_secs(10 * 60),
            default_endpoint_lease: Lease::from_secs(60),
            max_endpoint_lease: Lease::from_secs(24 * 60 * 60),
            node_lease: Lease::from_secs(5 * 60),
            domain: None,
            default_mtu: Mtu::parse("default_mtu", 1500)?,
        })
    }
}
