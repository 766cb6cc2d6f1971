//! What of a connection is more than addresses.

use proptest::{collection, option, prelude::*};
use tieline_proto::connectioncontext as proto;

use super::{dns, prefix, with_ip};
use crate::{Context, ContextRequest, ExtraPrefixRequest, Invalid, PolicyRoute, PolicyText, Route};

prop_compose! {
    fn policy()(
        from in option::of(prefix()), protocol in prop_oneof![Just(""), Just("tcp"), Just("17"), Just("132")],
        dst in option::of(1_u16..65_000), src in option::of((1_u16..30_000, 30_000_u16..65_000)),
        hosts in collection::vec(any::<u16>(), 0..3),
    ) -> Option<PolicyRoute> {
        let v6 = from.is_some_and(|from| from.addr().is_ipv6());
        let host = |n: u16| if v6 { format!("fd00::{n:x}/128") } else { format!("10.0.{}.{}/32", n >> 8, n & 255) };
        let routes = hosts.into_iter().map(|n| Route::parse("r", &host(n), "").unwrap()).collect();
        let text = PolicyText {
            from: &from.map(|from| from.to_string()).unwrap_or_default(),
            proto: protocol,
            dst_port: &dst.map(|port| port.to_string()).unwrap_or_default(),
            src_port: &src.map(|(first, last)| format!("{first}-{last}")).unwrap_or_default(),
        };
        PolicyRoute::parse(text, routes).ok()
    }
}

prop_compose! {
    pub(super) fn context()(
        policy in policy(), extra_prefixes in collection::vec(prefix(), 0..3), dns in collection::vec(dns(), 0..2),
        (v6, length, required, more) in (any::<bool>(), 1_u32..=32, 1_u32..4, 0_u32..4), applies_dns: bool,
        service_routes in collection::vec(prefix(), 0..2),
    ) -> Context {
        let request = ExtraPrefixRequest::new(v6, length, required, required + more).unwrap();
        Context {
            policies: policy.into_iter().collect(), extra_prefixes, extra_requests: vec![request], service_routes, dns, applies_dns,
        }
    }
}

/// What a client asks for that sends back what it has.
pub(super) fn asked_again(context: &Context) -> ContextRequest {
    let context = context.clone();
    ContextRequest {
        policies: context.policies,
        extra_prefixes: context.extra_prefixes,
        extra_requests: context.extra_requests,
        dns: context.dns,
        applies_dns: context.applies_dns,
    }
}

fn with_context(change: impl FnOnce(&mut proto::ConnectionContext)) -> Invalid {
    super::spoilt(|connection| {
        let mut context = proto::ConnectionContext::default();
        change(&mut context);
        connection.context = Some(context);
    })
}

fn policy_about(proto: &str) -> proto::PolicyRoute {
    proto::PolicyRoute {
        proto: proto.to_owned(),
        ..Default::default()
    }
}

#[test]
fn a_context_that_breaks_a_rule_is_refused_by_field() {
    let extra = |prefix_len, required_number| proto::ExtraPrefixRequest {
        addr_family: None,
        prefix_len,
        required_number,
        requested_number: 0,
    };
    let ip = "connection.context.ip_context";
    let context = "connection.context";
    let dns = |servers: &[&str]| proto::DnsContext {
        configs: vec![proto::DnsConfig {
            dns_server_ips: servers.iter().map(ToString::to_string).collect(),
            search_domains: Vec::new(),
        }],
    };
    let key = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    for (invalid, field) in [
        (
            with_ip(|ip| ip.policies = vec![policy_about("")]),
            format!("{ip}.policies[0]"),
        ),
        (
            with_ip(|ip| ip.policies = vec![policy_about("tcp"); 2]),
            format!("{ip}.policies[1]"),
        ),
        (
            with_ip(|ip| ip.policies = vec![policy_about("tcp"); 17]),
            format!("{ip}.policies"),
        ),
        (
            with_ip(|ip| ip.policies = vec![policy_about("tcpp")]),
            format!("{ip}.policies[0].proto"),
        ),
        (
            with_ip(|ip| ip.extra_prefix_request = vec![extra(33, 1)]),
            format!("{ip}.extra_prefix_request[0].prefix_len"),
        ),
        (
            with_ip(|ip| ip.extra_prefix_request = vec![extra(28, 9), extra(29, 9)]),
            format!("{ip}.extra_prefix_request"),
        ),
        (
            with_ip(|ip| ip.extra_prefixes = vec!["10.0.0.1/8".to_owned()]),
            format!("{ip}.extra_prefixes[0]"),
        ),
        (
            with_context(|c| c.dns_context = Some(dns(&["ns.example"]))),
            format!("{context}.dns_context.configs[0].servers[0]"),
        ),
        (
            with_context(|c| c.extra_context = key("tieline.io/dns", "yes")),
            format!("{context}.extra_context[tieline.io/dns]"),
        ),
        (
            with_context(|c| c.extra_context = key("tieline.io/dnss", "resolv.conf")),
            format!("{context}.extra_context[tieline.io/dnss]"),
        ),
    ] {
        assert_eq!(invalid.field, field, "{invalid}");
    }
}
