//! The parts of NSM's `connectioncontext` that are about more than addresses.

use std::collections::HashMap;

use tieline_proto::connectioncontext as proto;

use super::{next_hop_text, prefixes_from, to_texts};
use crate::{
    Context, ContextRequest, DNS_KEY, DNS_VALUE, DnsConfig, ExtraPrefixRequest, Invalid, PolicyRoute,
    PolicyText, Route, check_policies,
    limits::{MAX_DNS_CONFIGS, MAX_EXTRA_PREFIXES, MAX_POLICIES, MAX_ROUTES},
    service::check_count,
};

/// Keys of ours in `extra_context`; the others are anybody's.
const OWN_KEYS: &str = "tieline.io/";

/// What of an IP context is more than addresses.
pub(super) fn ip_from(message: &proto::IpContext, request: &mut ContextRequest) -> Result<(), Invalid> {
    check_count("policies", message.policies.len(), MAX_POLICIES)?;
    let policies = message.policies.iter().enumerate();
    let policies = policies.map(|(i, one)| policy_from(one).map_err(|e| e.within(&format!("policies[{i}]"))));
    request.policies = policies.collect::<Result<_, _>>()?;
    check_policies("policies", &request.policies)?;
    check_count(
        "extra_prefix_request",
        message.extra_prefix_request.len(),
        MAX_EXTRA_PREFIXES,
    )?;
    let extra = message.extra_prefix_request.iter().enumerate();
    let extra =
        extra.map(|(i, one)| extra_from(one).map_err(|e| e.within(&format!("extra_prefix_request[{i}]"))));
    request.extra_requests = extra.collect::<Result<_, _>>()?;
    let most = u32::try_from(MAX_EXTRA_PREFIXES).unwrap_or(u32::MAX);
    let asked: u32 = request.extra_requests.iter().map(|one| one.requested()).sum();
    if asked > most {
        let rule = format!("at most {most} prefixes in all");
        return Err(Invalid::new("extra_prefix_request", asked.to_string(), rule));
    }
    request.extra_prefixes = prefixes_from("extra_prefixes", &message.extra_prefixes, MAX_EXTRA_PREFIXES)?;
    Ok(())
}

fn policy_from(message: &proto::PolicyRoute) -> Result<PolicyRoute, Invalid> {
    check_count("routes", message.routes.len(), MAX_ROUTES)?;
    let routes = message.routes.iter().enumerate();
    let routes = routes.map(|(i, one)| Route::parse(&format!("routes[{i}]"), &one.prefix, &one.next_hop));
    let text = PolicyText {
        from: &message.from,
        proto: &message.proto,
        dst_port: &message.dst_port,
        src_port: &message.src_port,
    };
    PolicyRoute::parse(text, routes.collect::<Result<_, _>>()?)
}

fn extra_from(message: &proto::ExtraPrefixRequest) -> Result<ExtraPrefixRequest, Invalid> {
    let family = message.addr_family.unwrap_or_default();
    let v6 = match proto::ip_family::Family::try_from(family.family) {
        Ok(family) => family == proto::ip_family::Family::Ipv6,
        Err(_) => {
            let value = family.family.to_string();
            return Err(Invalid::new("addr_family.family", value, "IPV4 or IPV6"));
        }
    };
    let (required, requested) = (message.required_number, message.requested_number);
    ExtraPrefixRequest::new(v6, message.prefix_len, required, requested)
}

/// The name servers that a client was told before.
pub(super) fn dns_from(message: &proto::DnsContext) -> Result<Vec<DnsConfig>, Invalid> {
    check_count("configs", message.configs.len(), MAX_DNS_CONFIGS)?;
    let configs = message.configs.iter().enumerate();
    let config = |(i, one): (usize, &proto::DnsConfig)| {
        DnsConfig::parse(&format!("configs[{i}]"), &one.dns_server_ips, &one.search_domains)
    };
    configs.map(config).collect()
}

/// Whether a client asks for what is ours to give in `extra_context`.
pub(super) fn applies_dns(extra: &HashMap<String, String>) -> Result<bool, Invalid> {
    let own = extra.iter().filter(|(key, _)| key.starts_with(OWN_KEYS));
    let mut applies = false;
    for (key, value) in own {
        let refused = |rule: String| Err(Invalid::new(format!("extra_context[{key}]"), value, rule));
        match (key.as_str(), value.as_str()) {
            (DNS_KEY, DNS_VALUE) => applies = true,
            (DNS_KEY, "") => {}
            (DNS_KEY, _) => {
                return refused(format!(
                    "\"{DNS_VALUE}\" lets the namespace use the name servers; empty: it does not"
                ));
            }
            _ => return refused(format!("of these keys only {DNS_KEY} is known: leave it out")),
        }
    }
    Ok(applies)
}

pub(super) fn policies_to(context: &Context) -> Vec<proto::PolicyRoute> {
    let text = |value: Option<String>| value.unwrap_or_default();
    let route = |route: &Route| proto::Route {
        prefix: route.prefix.to_string(),
        next_hop: next_hop_text(route),
    };
    let policy = |policy: &PolicyRoute| proto::PolicyRoute {
        from: text(policy.from().map(|from| from.to_string())),
        proto: text(policy.protocol().map(|protocol| protocol.to_string())),
        dst_port: text(policy.dst_ports().map(|ports| ports.to_string())),
        src_port: text(policy.src_ports().map(|ports| ports.to_string())),
        routes: policy.routes().iter().map(route).collect(),
    };
    context.policies.iter().map(policy).collect()
}

pub(super) fn extra_to(context: &Context) -> Vec<proto::ExtraPrefixRequest> {
    let family = |v6| match v6 {
        true => proto::ip_family::Family::Ipv6,
        false => proto::ip_family::Family::Ipv4,
    };
    let request = |one: &ExtraPrefixRequest| proto::ExtraPrefixRequest {
        addr_family: Some(proto::IpFamily {
            family: family(one.is_ipv6()).into(),
        }),
        prefix_len: one.length().into(),
        required_number: one.required(),
        requested_number: one.requested(),
    };
    context.extra_requests.iter().map(request).collect()
}

pub(super) fn dns_to(context: &Context) -> Option<proto::DnsContext> {
    let config = |one: &DnsConfig| proto::DnsConfig {
        dns_server_ips: to_texts(one.servers()),
        search_domains: to_texts(one.search_domains()),
    };
    (!context.dns.is_empty()).then(|| proto::DnsContext {
        configs: context.dns.iter().map(config).collect(),
    })
}

pub(super) fn extra_context_to(context: &Context) -> HashMap<String, String> {
    let asked = context
        .applies_dns
        .then(|| (DNS_KEY.to_owned(), DNS_VALUE.to_owned()));
    asked.into_iter().collect()
}
