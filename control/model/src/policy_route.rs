//! Policy routes: packets of a client that go by a table of their own.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Invalid, Ports, Protocol, Route, limits::MAX_POLICIES, service::check_count, text::text_form};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Transport protocols with ports (IANA): TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Number of a transport protocol: `tcp` or `6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProtocolNumber(u8);

impl ProtocolNumber {
    /// Reads a word or a number; an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        if let Some(word) = Protocol::ALL.into_iter().find(|one| one.as_str() == text) {
            return Ok(Self(word.number()));
        }
        if text == "icmpv6" {
            return Ok(Self(ICMPV6));
        }
        let number = text.parse().ok().filter(|number| *number > 0);
        let rule = "a protocol is tcp, udp, sctp, icmp, icmpv6 or a number from 1 to 255";
        number.map(Self).ok_or_else(|| Invalid::new(field, text, rule))
    }

    /// The number (IANA, Assigned Internet Protocol Numbers).
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    fn has_ports(self) -> bool {
        WITH_PORTS.contains(&self.0)
    }
}

impl fmt::Display for ProtocolNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_form!(ProtocolNumber, "proto");

/// Which packets of a client go by other routes than its others. What is not given is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRoute {
    from: Option<IpNet>,
    protocol: Option<ProtocolNumber>,
    dst_ports: Option<Ports>,
    src_ports: Option<Ports>,
    routes: Vec<Route>,
}

/// A policy route as NSM's API spells it; an empty text is not given.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyText<'a> {
    /// `10.0.0.1`, or with a prefix length, whose rest does not count.
    pub from: &'a str,
    /// `tcp` or `6`.
    pub proto: &'a str,
    /// `80` or `8000-8999`.
    pub dst_port: &'a str,
    /// As `dst_port`.
    pub src_port: &'a str,
}

impl PolicyRoute {
    /// Reads the parts. Everything in it is of one address family; without routes it leads to everything. An error
    /// names the part.
    pub fn parse<'a>(text: PolicyText<'a>, routes: Vec<Route>) -> Result<Self, Invalid> {
        let given = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        let policy = Self {
            from: given(text.from).map(source).transpose()?,
            protocol: given(text.proto)
                .map(|text| ProtocolNumber::parse("proto", text))
                .transpose()?,
            dst_ports: given(text.dst_port)
                .map(|text| Ports::parse("dst_port", text))
                .transpose()?,
            src_ports: given(text.src_port)
                .map(|text| Ports::parse("src_port", text))
                .transpose()?,
            routes,
        };
        policy.checked()
    }

    fn checked(self) -> Result<Self, Invalid> {
        let ports = [("dst_port", self.dst_ports), ("src_port", self.src_ports)];
        for (field, ports) in ports
            .into_iter()
            .filter_map(|(field, ports)| Some((field, ports?)))
        {
            if self.protocol.is_some_and(|protocol| !protocol.has_ports()) {
                let rule = "the protocol has no ports: leave them out, or say tcp, udp or sctp";
                return Err(Invalid::new(field, ports.to_string(), rule));
            }
            if ports.last() == u16::MAX {
                let rule = "the kernel's rules know ports up to 65534";
                return Err(Invalid::new(field, ports.to_string(), rule));
            }
        }
        let from_anywhere = self.from.is_none_or(|from| from.prefix_len() == 0);
        if from_anywhere && self.protocol.is_none() && ports.iter().all(|(_, ports)| ports.is_none()) {
            let rule =
                "every packet would go by it: say from, proto, dst_port or src_port, or use a plain route";
            return Err(Invalid::new("", "", rule));
        }
        let family = self.is_ipv6();
        for (i, route) in self.routes.iter().enumerate() {
            if family.is_some_and(|v6| route.prefix.addr().is_ipv6() != v6) {
                let rule = "a policy is about one address family: make one policy for IPv4 and one for IPv6";
                let field = format!("routes[{i}].prefix");
                return Err(Invalid::new(field, route.prefix.to_string(), rule));
            }
        }
        let never = match (self.protocol, family) {
            (Some(ProtocolNumber(ICMP)), Some(true)) => "IPv6 has icmpv6",
            (Some(ProtocolNumber(ICMPV6)), Some(false)) => "IPv4 has icmp",
            _ => return Ok(self),
        };
        let value = self
            .protocol
            .map(|protocol| protocol.to_string())
            .unwrap_or_default();
        Err(Invalid::new("proto", value, format!("no packet has it: {never}")))
    }

    /// Whether it is about IPv6; `None`: about both families.
    #[must_use]
    pub fn is_ipv6(&self) -> Option<bool> {
        let routed = || self.routes.first().map(|route| route.prefix);
        self.from.or_else(routed).map(|prefix| prefix.addr().is_ipv6())
    }

    /// Where the packets come from.
    #[must_use]
    pub fn from(&self) -> Option<IpNet> {
        self.from
    }

    /// Their protocol.
    #[must_use]
    pub fn protocol(&self) -> Option<ProtocolNumber> {
        self.protocol
    }

    /// The ports that they go to.
    #[must_use]
    pub fn dst_ports(&self) -> Option<Ports> {
        self.dst_ports
    }

    /// The ports that they come from.
    #[must_use]
    pub fn src_ports(&self) -> Option<Ports> {
        self.src_ports
    }

    /// Their routes; none: everything by way of the far end.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn selects_as(&self, other: &Self) -> bool {
        (self.from, self.protocol, self.dst_ports, self.src_ports)
            == (other.from, other.protocol, other.dst_ports, other.src_ports)
            && (self.is_ipv6().is_none() || other.is_ipv6().is_none() || self.is_ipv6() == other.is_ipv6())
    }
}

/// Refuses too many policies, and one that no packet reaches because an earlier one takes the same.
pub fn check_policies(field: &str, policies: &[PolicyRoute]) -> Result<(), Invalid> {
    check_count(field, policies.len(), MAX_POLICIES)?;
    for (i, policy) in policies.iter().enumerate() {
        if let Some(j) = policies.iter().take(i).position(|other| other.selects_as(policy)) {
            let rule = format!(
                "is about the same packets as {field}[{j}], which come first: put the routes together"
            );
            return Err(Invalid::new(format!("{field}[{i}]"), "", rule));
        }
    }
    Ok(())
}

/// An address, or one with a prefix length, whose bits beyond the length do not count (as in NSM).
fn source(text: &str) -> Result<IpNet, Invalid> {
    let address = text.parse::<IpAddr>().map(IpNet::from).ok();
    let prefix = address.or_else(|| text.parse::<IpNet>().ok());
    let rule = "an address or a prefix, such as 10.1.0.1 or fd00:1::/64";
    prefix
        .map(|prefix| prefix.trunc())
        .ok_or_else(|| Invalid::new("from", text, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(
        from: &str,
        proto: &str,
        dst_port: &str,
        src_port: &str,
        routes: &[&str],
    ) -> Result<PolicyRoute, Invalid> {
        let routes = routes
            .iter()
            .map(|prefix| Route::parse("routes", prefix, "").unwrap());
        let text = PolicyText {
            from,
            proto,
            dst_port,
            src_port,
        };
        PolicyRoute::parse(text, routes.collect())
    }

    #[test]
    fn the_forms_of_nsm_are_read() {
        let read = policy("172.16.3.1/24", "6", "6666", "", &["0.0.0.0/0"]).unwrap();
        assert_eq!(read.from().unwrap().to_string(), "172.16.3.0/24");
        assert_eq!(read.protocol().unwrap().number(), 6);
        assert_eq!(read.dst_ports().unwrap().to_string(), "6666");
        assert_eq!(read.is_ipv6(), Some(false));
        for (proto, number) in [("tcp", 6), ("udp", 17), ("icmpv6", 58), ("47", 47)] {
            assert_eq!(
                policy("", proto, "", "", &[])
                    .unwrap()
                    .protocol()
                    .unwrap()
                    .number(),
                number
            );
        }
        assert_eq!(policy("", "udp", "", "5000-5999", &[]).unwrap().is_ipv6(), None);
        assert_eq!(
            policy("2004::5/120", "", "", "", &[]).unwrap().is_ipv6(),
            Some(true)
        );
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_field() {
        let v4 = ["10.0.0.0/8"];
        for (from, proto, dst_port, src_port, routes, field) in [
            ("10.0.0", "", "", "", &v4[..], "from"),
            ("", "0", "", "", &v4, "proto"),
            ("", "256", "", "", &v4, "proto"),
            ("", "TCP", "", "", &v4, "proto"),
            ("", "tcp", "0", "", &v4, "dst_port"),
            ("", "tcp", "", "9-8", &v4, "src_port"),
            ("", "tcp", "1024-65535", "", &v4, "dst_port"),
            ("0.0.0.0/0", "", "", "", &v4, ""),
            ("", "icmp", "80", "", &v4, "dst_port"),
            ("", "", "", "", &v4, ""),
            ("fd00::1", "", "", "", &v4, "routes[0].prefix"),
            ("", "tcp", "", "", &["10.0.0.0/8", "fd00::/8"], "routes[1].prefix"),
            ("fd00::1", "icmp", "", "", &[], "proto"),
            ("10.0.0.1", "icmpv6", "", "", &[], "proto"),
        ] {
            let refused = policy(from, proto, dst_port, src_port, routes).unwrap_err();
            assert_eq!(refused.field, field, "{refused}");
        }
    }

    #[test]
    fn a_policy_that_nothing_reaches_is_refused() {
        let v4 = policy("", "tcp", "", "", &["10.0.0.0/8"]).unwrap();
        let v6 = policy("", "tcp", "", "", &["fd00::/8"]).unwrap();
        let both = policy("", "tcp", "", "", &[]).unwrap();
        check_policies("p", &[v4.clone(), v6]).unwrap();
        for later in [v4.clone(), both] {
            let refused = check_policies("p", &[v4.clone(), later]).unwrap_err();
            assert_eq!(refused.field, "p[1]");
            assert!(refused.rule.contains("p[0]"), "{refused}");
        }
        let many: Vec<PolicyRoute> = (1..=17)
            .map(|port| policy("", "tcp", &port.to_string(), "", &[]).unwrap())
            .collect();
        check_policies("p", &many[..16]).unwrap();
        assert!(check_policies("p", &many).is_err());
    }

    #[test]
    fn it_is_the_same_after_it_was_written_down() {
        let one = policy("10.0.0.0/8", "tcp", "80-90", "7", &["10.0.0.0/8"]).unwrap();
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<PolicyRoute>(&text).unwrap(), one);
    }
}
