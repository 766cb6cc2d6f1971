//! Name servers that a service gives to its clients.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    DomainName, Invalid,
    limits::{MAX_DNS_SERVERS, MAX_SEARCH_DOMAINS},
    service::check_count,
};

/// One set of name servers and the domains that they are asked about (NSM's `DNSConfig`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsConfig {
    servers: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    search_domains: Vec<DomainName>,
}

impl DnsConfig {
    /// Reads the texts; there is at least one server. An error names `field`'s part.
    pub fn parse(field: &str, servers: &[String], search_domains: &[String]) -> Result<Self, Invalid> {
        let field = |part: &str, i: usize| format!("{field}.{part}[{i}]");
        if servers.is_empty() {
            return Err(Invalid::new(
                field("servers", 0),
                "",
                "name at least one server by its address",
            ));
        }
        check_count("servers", servers.len(), MAX_DNS_SERVERS)?;
        check_count("search_domains", search_domains.len(), MAX_SEARCH_DOMAINS)?;
        let server = |(i, text): (usize, &String)| {
            text.parse()
                .map_err(|_| Invalid::new(field("servers", i), text, "an IPv4 or IPv6 address"))
        };
        let domain = |(i, text): (usize, &String)| DomainName::parse(&field("search_domains", i), text);
        Ok(Self {
            servers: servers.iter().enumerate().map(server).collect::<Result<_, _>>()?,
            search_domains: search_domains
                .iter()
                .enumerate()
                .map(domain)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Addresses of the servers, at least one.
    #[must_use]
    pub fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Domains that they are asked about.
    #[must_use]
    pub fn search_domains(&self) -> &[DomainName] {
        &self.search_domains
    }
}
