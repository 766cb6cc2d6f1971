//! What a connection brings to its client beside addresses and plain routes.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{
    DnsConfig, EndPolicy, Invalid, PolicyRoute, Route,
    limits::{MAX_EXTRA_PREFIXES, MAX_POLICIES},
};

/// The key in NSM's `extra_context` by which a client asks that its namespace uses the service's name servers.
pub const DNS_KEY: &str = "tieline.io/dns";
/// Its only value: by the namespace's `resolv.conf`.
pub const DNS_VALUE: &str = "resolv.conf";

/// Prefixes that a client wants for itself, to give addresses out of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExtraPrefixRequest {
    v6: bool,
    length: u8,
    required: u32,
    requested: u32,
}

impl ExtraPrefixRequest {
    /// Checks length and numbers: `required` must be had, up to `requested` may be.
    pub fn new(v6: bool, length: u32, required: u32, requested: u32) -> Result<Self, Invalid> {
        let most = if v6 { 128 } else { 32 };
        let good = u8::try_from(length)
            .ok()
            .filter(|length| (1..=most).contains(length));
        let Some(length) = good else {
            let rule = format!("a prefix length is between 1 and {most}");
            return Err(Invalid::new("prefix_len", length.to_string(), rule));
        };
        let requested = requested.max(required);
        let most = u32::try_from(MAX_EXTRA_PREFIXES).unwrap_or(u32::MAX);
        if !(1..=most).contains(&requested) {
            let rule = format!("between 1 and {most} prefixes");
            return Err(Invalid::new("requested_number", requested.to_string(), rule));
        }
        Ok(Self {
            v6,
            length,
            required,
            requested,
        })
    }

    /// Whether they are of IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        self.v6
    }

    /// Their length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// How many there must be.
    #[must_use]
    pub fn required(self) -> u32 {
        self.required
    }

    /// How many there may be, at least [`Self::required`].
    #[must_use]
    pub fn requested(self) -> u32 {
        self.requested
    }

    /// Whether `prefix` is one of these.
    #[must_use]
    pub fn describes(self, prefix: &IpNet) -> bool {
        prefix.addr().is_ipv6() == self.v6 && prefix.prefix_len() == self.length
    }
}

/// What a connection brings to its client beside addresses and the routes that it asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Context {
    /// Packets that go by tables of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyRoute>,
    /// Prefixes that the client has for itself; its endpoint routes them to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_prefixes: Vec<IpNet>,
    /// What the client asked for of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_requests: Vec<ExtraPrefixRequest>,
    /// What the service lets its clients reach, by way of the far end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_routes: Vec<IpNet>,
    /// The service's name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<DnsConfig>,
    /// Whether the client's namespace is made to use them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub applies_dns: bool,
}

impl Context {
    /// The policies family by family, for a wire whose far end has the `far` addresses: one that is about both becomes two,
    /// and one without routes leads everything there. A family that the wire does not have is left out.
    #[must_use]
    pub fn end_policies(&self, far: &[IpAddr]) -> Vec<EndPolicy> {
        let of_family = |policy: &PolicyRoute, ip: &IpAddr| {
            let v6 = ip.is_ipv6();
            if policy.is_ipv6().is_some_and(|only| only != v6) {
                return None;
            }
            let everything = || Route {
                prefix: if v6 {
                    Ipv6Net::default().into()
                } else {
                    Ipv4Net::default().into()
                },
                next_hop: None,
            };
            let routes = match policy.routes() {
                [] => vec![everything()],
                routes => routes.to_vec(),
            };
            Some(EndPolicy {
                input: None,
                from: policy.from(),
                protocol: policy.protocol(),
                dst_ports: policy.dst_ports(),
                src_ports: policy.src_ports(),
                routes,
            })
        };
        let families = |policy| far.iter().map(move |ip| (policy, ip));
        let policies = self.policies.iter().flat_map(families);
        policies
            .filter_map(|(policy, ip)| of_family(policy, ip))
            .collect()
    }
}

/// What a client asks for of this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextRequest {
    /// At most [`MAX_POLICIES`] policies, none of which hides another.
    pub policies: Vec<PolicyRoute>,
    /// Prefixes that it had, or wishes for.
    pub extra_prefixes: Vec<IpNet>,
    /// Prefixes that it needs.
    pub extra_requests: Vec<ExtraPrefixRequest>,
    /// Name servers that it was told before.
    pub dns: Vec<DnsConfig>,
    /// Whether its namespace shall use the service's name servers.
    pub applies_dns: bool,
}

const _: () = assert!(
    2 * MAX_POLICIES <= 32,
    "one of both families is two, and a node numbers those of an end in five bits"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyText;

    #[test]
    fn a_policy_becomes_one_for_each_family_that_it_is_about() {
        let far: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let policy = |proto, routes| {
            let text = PolicyText {
                proto,
                ..PolicyText::default()
            };
            PolicyRoute::parse(text, routes).unwrap()
        };
        let own = Route::parse("r", "10.9.0.0/16", "").unwrap();
        let context = Context {
            policies: vec![policy("tcp", Vec::new()), policy("udp", vec![own])],
            ..Context::default()
        };
        let text = |policy: &EndPolicy| format!("{} {}", policy.protocol.unwrap(), policy.routes[0].prefix);
        let both: Vec<String> = context.end_policies(&far).iter().map(text).collect();
        assert_eq!(both, ["6 0.0.0.0/0", "6 ::/0", "17 10.9.0.0/16"]);
        let v6: Vec<String> = context.end_policies(&far[1..]).iter().map(text).collect();
        assert_eq!(v6, ["6 ::/0"], "the wire has no IPv4");
    }

    #[test]
    fn a_request_for_prefixes_has_a_length_and_a_number() {
        let request = ExtraPrefixRequest::new(false, 28, 2, 0).unwrap();
        assert_eq!((request.required(), request.requested()), (2, 2));
        assert!(request.describes(&"10.0.0.0/28".parse().unwrap()));
        assert!(!request.describes(&"10.0.0.0/29".parse().unwrap()));
        assert!(!request.describes(&"fd00::/28".parse().unwrap()));
        for (length, required, requested, field) in [
            (0, 1, 1, "prefix_len"),
            (33, 1, 1, "prefix_len"),
            (28, 0, 0, "requested_number"),
            (28, 1, 17, "requested_number"),
        ] {
            let refused = ExtraPrefixRequest::new(false, length, required, requested).unwrap_err();
            assert_eq!(refused.field, field);
        }
    }
}
