//! Policies and name servers of an end.

use std::collections::BTreeSet;

use tieline_proto::tieline::agent::v1 as proto;

use super::{At, InvalidWire, MAX_PER_END, if_name, ip, prefix, route};
use crate::{
    desired::{NameServers, Policy, PortRange, Route},
    netlink::rule::MAX_POLICIES,
};

/// The longest text of a search domain.
const MAX_DOMAIN_LEN: usize = 253;

/// Checks the policies of one end.
pub(super) fn policies(at: At<'_>, messages: &[proto::Policy]) -> Result<Vec<Policy>, InvalidWire> {
    if messages.len() > MAX_POLICIES {
        return Err(at.invalid("veth.policies", messages.len(), "must be at most 32"));
    }
    messages.iter().map(|message| policy(at, message)).collect()
}

fn policy(at: At<'_>, message: &proto::Policy) -> Result<Policy, InvalidWire> {
    const FIELD: &str = "veth.policies.routes";
    if !(1..=MAX_PER_END).contains(&message.routes.len()) {
        return Err(at.invalid(FIELD, message.routes.len(), "must be between 1 and 1024"));
    }
    let routes = message.routes.iter().map(|message| route(at, FIELD, message));
    let routes: BTreeSet<Route> = routes.collect::<Result<_, _>>()?;
    let from = match message.from.as_str() {
        "" => None,
        text => Some(prefix(at, "veth.policies.from", text)?),
    };
    let families = routes.iter().map(|route| route.prefix).chain(from);
    let families: BTreeSet<bool> = families.map(|prefix| prefix.addr().is_ipv6()).collect();
    if families.len() > 1 {
        return Err(at.invalid("veth.policies", &message.from, "must be of one address family"));
    }
    let too_large = "must be at most 255";
    let protocol = u8::try_from(message.protocol)
        .map_err(|_| at.invalid("veth.policies.protocol", message.protocol, too_large))?;
    let input = match message.input.as_str() {
        "" => None,
        name => Some(if_name(at, "veth.policies.input", name)?),
    };
    let ports = |field, first, last| port_range(at, field, first, last);
    Ok(Policy {
        input,
        from: from.filter(|from| from.prefix_len() > 0),
        protocol: (protocol != 0).then_some(protocol),
        src_ports: ports(
            "veth.policies.src_port",
            message.src_port_first,
            message.src_port_last,
        )?,
        dst_ports: ports(
            "veth.policies.dst_port",
            message.dst_port_first,
            message.dst_port_last,
        )?,
        v6: families.contains(&true),
        routes: routes.into_iter().collect(),
    })
}

/// Both 0: any.
fn port_range(
    at: At<'_>,
    field: &'static str,
    first: u32,
    last: u32,
) -> Result<Option<PortRange>, InvalidWire> {
    let port = |port: u32| u16::try_from(port).ok();
    match (port(first), port(last)) {
        (Some(0), Some(0)) => Ok(None),
        // As the kernel's `fib_rule_port_range_valid`.
        (Some(first), Some(last)) if 0 < first && first <= last && last < u16::MAX => Ok(Some((first, last))),
        _ => {
            let rule = "must be two ports between 1 and 65534, the lower one first";
            Err(at.invalid(field, format!("{first}-{last}"), rule))
        }
    }
}

/// Checks one set of name servers, whose texts go into a file.
pub(super) fn name_servers(at: At<'_>, message: proto::NameServers) -> Result<NameServers, InvalidWire> {
    let addresses = message.addresses.iter();
    let addresses = addresses.map(|text| ip(at, "veth.name_servers.addresses", text));
    let is_domain = |domain: &&String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        (1..=MAX_DOMAIN_LEN).contains(&domain.len()) && domain.bytes().all(plain)
    };
    if let Some(bad) = message.search_domains.iter().find(|domain| !is_domain(domain)) {
        let rule = "must be letters, digits, '-', '_' and '.', at most 253";
        return Err(at.invalid("veth.name_servers.search_domains", bad, rule));
    }
    Ok(NameServers {
        addresses: addresses.collect::<Result<_, _>>()?,
        search_domains: message.search_domains,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At<'_> = At {
        wire: "c1",
        side: "client",
    };

    fn message() -> proto::Policy {
        proto::Policy {
            from: "10.1.0.0/16".to_owned(),
            protocol: 6,
            dst_port_first: 80,
            dst_port_last: 90,
            routes: vec![to("0.0.0.0/0", "10.0.0.1"), to("10.2.0.0/16", "")],
            ..proto::Policy::default()
        }
    }

    fn to(prefix: &str, next_hop: &str) -> proto::Route {
        proto::Route {
            prefix: prefix.to_owned(),
            next_hop: next_hop.to_owned(),
        }
    }

    #[test]
    fn a_policy_says_what_it_is_about_and_where_it_leads() {
        let read = policy(AT, &message()).unwrap();
        assert_eq!(read.from.unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(
            (read.protocol, read.dst_ports, read.src_ports),
            (Some(6), Some((80, 90)), None)
        );
        assert_eq!((read.v6, read.routes.len(), read.input), (false, 2, None));
        let anywhere = proto::Policy {
            from: "::/0".to_owned(),
            input: "nse-1".to_owned(),
            routes: vec![to("::/0", "")],
            ..proto::Policy::default()
        };
        let read = policy(AT, &anywhere).unwrap();
        assert_eq!((read.from, read.protocol, read.v6), (None, None, true));
        assert_eq!(read.input.unwrap().as_str(), "nse-1");
    }

    #[test]
    fn what_the_kernel_would_not_take_is_refused_by_its_field() {
        type Spoil = fn(&mut proto::Policy);
        let cases: [(&str, Spoil); 8] = [
            ("routes", |one| one.routes.clear()),
            ("routes.prefix", |one| one.routes.push(to("10.2.0.1/16", ""))),
            ("from", |one| one.from = "10.1.0.1/16".to_owned()),
            ("protocol", |one| one.protocol = 256),
            ("input", |one| one.input = "a/b".to_owned()),
            ("dst_port", |one| one.dst_port_last = 79),
            ("src_port", |one| one.src_port_last = 65535),
            ("", |one| one.routes.push(to("fd00::/8", ""))),
        ];
        for (field, spoil) in cases {
            let mut bad = message();
            spoil(&mut bad);
            let refused = policies(AT, &[bad]).unwrap_err();
            let path = format!("client.veth.policies.{field}");
            assert_eq!(refused.field, path.trim_end_matches('.'), "{refused}");
        }
        let many = vec![message(); MAX_POLICIES + 1];
        assert_eq!(policies(AT, &many).unwrap_err().field, "client.veth.policies");
    }

    #[test]
    fn a_search_domain_cannot_bring_a_line_of_its_own() {
        let servers = |domain: &str| proto::NameServers {
            addresses: vec!["10.0.0.53".to_owned()],
            search_domains: vec![domain.to_owned()],
        };
        name_servers(AT, servers("corp.example")).unwrap();
        for bad in ["", "a b", "a\nnameserver 192.0.2.1"] {
            assert!(name_servers(AT, servers(bad)).is_err(), "{bad:?}");
        }
    }
}
