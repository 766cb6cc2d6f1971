//! NetworkService.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    DnsConfig, Invalid, Labels, MatchSelector, Mtu, RegistryDomain, ServiceName, ServiceSelector,
    limits::{MAX_DESTINATIONS, MAX_DNS_CONFIGS, MAX_MATCHES, MAX_PREFIXES, MAX_ROUTES, MAX_WEIGHT},
    text::word_form,
};

/// What a wire carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Payload {
    /// IP packets: both ends are handed to the stack of the far side directly.
    #[default]
    Ip,
    /// Ethernet frames, bit by bit.
    Ethernet,
}

impl Payload {
    /// Reads NSM's "IP" or "ETHERNET", empty being IP; an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        match text {
            "" | "IP" => Ok(Self::Ip),
            "ETHERNET" => Ok(Self::Ethernet),
            _ => Err(Invalid::new(field, text, "a payload is \"IP\" or \"ETHERNET\"")),
        }
    }

    /// NSM's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "IP",
            Self::Ethernet => "ETHERNET",
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one of several endpoints is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Policy {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastLoaded,
    /// In turn among those on the node that the packets come from; the others when there is none.
    SameNodeFirst,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastLoaded, Self::SameNodeFirst];

    /// The word in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::LeastLoaded => "LeastLoaded",
            Self::SameNodeFirst => "SameNodeFirst",
        }
    }
}

word_form!(Policy, "policy", "a policy");

/// What becomes of live connections when the endpoints that they may have change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rebalance {
    /// They stay where they are as long as that is allowed.
    #[default]
    Keep,
    /// As few of them as possible are moved, so that each endpoint has its share.
    Rebalance,
}

impl Rebalance {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Keep, Self::Rebalance];

    /// The word in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "Keep",
            Self::Rebalance => "Rebalance",
        }
    }
}

word_form!(Rebalance, "rebalance", "rebalance");

/// One destination of a [`Match`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Labels that the endpoint must have registered for the service.
    pub destination_selector: MatchSelector,
    /// Its share of new connections among the match's destinations; 0 in all of them means equal shares, 0 in some
    /// means none for these.
    pub weight: u32,
}

/// One of a service's ordered rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Labels that the request must carry; empty: any request.
    pub source_selector: MatchSelector,
    /// Where to; empty: any endpoint of the service.
    pub routes: Vec<Destination>,
    /// Whether the next match is tried when no endpoint is left here.
    pub fallthrough: bool,
    /// NSM's labels for choosing a forwarder: kept and shown; with one forwarder per node there is no choice.
    pub metadata: Option<Labels>,
}

/// What providers publish and clients ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkService {
    name: ServiceName,
    payload: Payload,
    matches: Vec<Match>,
    #[serde(default)]
    selector: ServiceSelector,
    policy: Policy,
    #[serde(default)]
    rebalance: Rebalance,
    prefixes: Vec<IpNet>,
    excluded_prefixes: Vec<IpNet>,
    mtu: Option<Mtu>,
    #[serde(default)]
    routes: Vec<IpNet>,
    #[serde(default)]
    dns: Vec<DnsConfig>,
}

impl NetworkService {
    /// A service of this name with the defaults everywhere.
    #[must_use]
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            payload: Payload::default(),
            matches: Vec::new(),
            selector: ServiceSelector::default(),
            policy: Policy::default(),
            rebalance: Rebalance::default(),
            prefixes: Vec::new(),
            excluded_prefixes: Vec::new(),
            mtu: None,
            routes: Vec::new(),
            dns: Vec::new(),
        }
    }

    /// The same as it is known outside of `domain`, where it is registered.
    #[must_use]
    pub fn in_domain(self, domain: &RegistryDomain) -> Self {
        Self {
            name: self.name.in_domain(domain),
            ..self
        }
    }

    /// With this payload.
    #[must_use]
    pub fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// With these rules, in order.
    pub fn with_matches(mut self, matches: Vec<Match>) -> Result<Self, Invalid> {
        check_count("matches", matches.len(), MAX_MATCHES)?;
        for (i, rule) in matches.iter().enumerate() {
            check_count(
                &format!("matches[{i}].routes"),
                rule.routes.len(),
                MAX_DESTINATIONS,
            )?;
            for (j, route) in rule.routes.iter().enumerate() {
                if route.weight > MAX_WEIGHT {
                    let field = format!("matches[{i}].routes[{j}].weight");
                    let rule = format!("a weight is at most {MAX_WEIGHT}");
                    return Err(Invalid::new(field, route.weight.to_string(), rule));
                }
            }
        }
        self.matches = matches;
        Ok(self)
    }

    /// Only endpoints with these labels, or through functions in this order.
    #[must_use]
    pub fn with_selector(mut self, selector: impl Into<ServiceSelector>) -> Self {
        self.selector = selector.into();
        self
    }

    /// With this policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// With this for live connections when their endpoints change.
    #[must_use]
    pub fn with_rebalance(mut self, rebalance: Rebalance) -> Self {
        self.rebalance = rebalance;
        self
    }

    /// With these prefixes as what its clients reach through their wires, beside the endpoint.
    pub fn with_routes(mut self, routes: Vec<IpNet>) -> Result<Self, Invalid> {
        check_count("routes", routes.len(), MAX_ROUTES)?;
        self.routes = routes;
        Ok(self)
    }

    /// With these name servers for its clients.
    pub fn with_dns(mut self, dns: Vec<DnsConfig>) -> Result<Self, Invalid> {
        check_count("dns", dns.len(), MAX_DNS_CONFIGS)?;
        self.dns = dns;
        Ok(self)
    }

    /// With addresses from these prefixes, which must not overlap one another, less the excluded ones.
    pub fn with_prefixes(mut self, prefixes: Vec<IpNet>, excluded: Vec<IpNet>) -> Result<Self, Invalid> {
        check_count("prefixes", prefixes.len(), MAX_PREFIXES)?;
        check_count("excluded_prefixes", excluded.len(), MAX_PREFIXES)?;
        for (i, prefix) in prefixes.iter().enumerate() {
            let overlaps = |other: &&IpNet| other.contains(prefix) || prefix.contains(*other);
            if let Some(other) = prefixes.iter().take(i).find(overlaps) {
                let rule = format!("overlaps {other} of the same service: keep one of them");
                return Err(Invalid::new(format!("prefixes[{i}]"), prefix.to_string(), rule));
            }
        }
        self.prefixes = prefixes;
        self.excluded_prefixes = excluded;
        Ok(self)
    }

    /// With this MTU as the most that its wires get.
    #[must_use]
    pub fn with_mtu(mut self, mtu: Option<Mtu>) -> Self {
        self.mtu = mtu;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// What its wires carry.
    #[must_use]
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// Its rules, in order.
    #[must_use]
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// Labels that its endpoints must carry, or the functions in their order.
    #[must_use]
    pub fn selector(&self) -> &ServiceSelector {
        &self.selector
    }

    /// How one of several endpoints is chosen.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// What becomes of live connections when their endpoints change.
    #[must_use]
    pub fn rebalance(&self) -> Rebalance {
        self.rebalance
    }

    /// What its clients reach through their wires, beside the endpoint: routes by way of the endpoint's address.
    #[must_use]
    pub fn routes(&self) -> &[IpNet] {
        &self.routes
    }

    /// Name servers for its clients.
    #[must_use]
    pub fn dns(&self) -> &[DnsConfig] {
        &self.dns
    }

    /// Where its wires' addresses come from; empty: the default prefixes.
    #[must_use]
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// What is never given out.
    #[must_use]
    pub fn excluded_prefixes(&self) -> &[IpNet] {
        &self.excluded_prefixes
    }

    /// The most that its wires get; `None`: the default for those who do not ask, and what they ask for the others.
    #[must_use]
    pub fn mtu(&self) -> Option<Mtu> {
        self.mtu
    }
}

pub(crate) fn check_count(field: &str, count: usize, most: usize) -> Result<(), Invalid> {
    if count <= most {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("{count} entries"),
        format!("at most {most}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_one_service_must_not_overlap() {
        let prefixes = ["10.0.0.0/16", "fd00::/64", "10.0.7.0/24"]
            .map(|p| p.parse().unwrap())
            .to_vec();
        let error = NetworkService::new("gold".parse().unwrap())
            .with_prefixes(prefixes, Vec::new())
            .unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.value.as_str()),
            ("prefixes[2]", "10.0.7.0/24")
        );
    }
}
