//! NetworkServices in files.

use serde::{Deserialize, Serialize};

use super::{Document, LabelsForm, Metadata, Pairs, is_false, is_zero, pairs, prefixes};
use crate::{
    Destination, DnsConfig, Invalid, Labels, Match, MatchSelector, Mtu, NetworkService, ObjectKind, Payload,
    Policy, Rebalance, ServiceName, ServiceSelector, service_selector::OneOrMany,
};

/// What a NetworkService says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in crate::yaml) struct ServiceSpec {
    /// The early NSM form repeats the object's name here.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    selector: Pairs<OneOrMany>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    matches: Vec<MatchForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    excluded_prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebalance: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns: Vec<DnsForm>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DnsForm {
    servers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    search_domains: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MatchForm {
    #[serde(alias = "source_selector", skip_serializing_if = "Pairs::is_empty")]
    source_selector: Pairs<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RouteForm>,
    #[serde(skip_serializing_if = "is_false")]
    fallthrough: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<LabelsForm>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RouteForm {
    #[serde(alias = "destination_selector", skip_serializing_if = "Pairs::is_empty")]
    destination_selector: Pairs<String>,
    #[serde(skip_serializing_if = "is_zero")]
    weight: u32,
}

impl Document<ServiceSpec> {
    /// The service, if every rule holds.
    pub(in crate::yaml) fn service(self) -> Result<NetworkService, Invalid> {
        let name = ServiceName::parse("metadata.name", &self.metadata.name)?;
        Labels::parse("metadata.labels", self.metadata.labels.0)?;
        if let Some(again) = self
            .spec
            .metadata
            .as_ref()
            .filter(|again| again.name != self.metadata.name)
        {
            let rule = format!("differs from metadata.name \"{name}\": leave it out");
            return Err(Invalid::new("spec.metadata.name", &again.name, rule));
        }
        self.spec.service(name).map_err(|e| e.within("spec"))
    }
}

impl ServiceSpec {
    fn service(self, name: ServiceName) -> Result<NetworkService, Invalid> {
        let policy = self.policy.as_deref().map(|text| Policy::parse("policy", text));
        let rebalance = self
            .rebalance
            .as_deref()
            .map(|text| Rebalance::parse("rebalance", text));
        let dns = self.dns.iter().enumerate();
        let dns =
            dns.map(|(i, form)| DnsConfig::parse(&format!("dns[{i}]"), &form.servers, &form.search_domains));
        let matches = self.matches.into_iter().enumerate();
        let matches = matches.map(|(i, rule)| rule.rule().map_err(|e| e.within(&format!("matches[{i}]"))));
        let mtu = self.mtu.map(|octets| Mtu::parse("mtu", octets)).transpose()?;
        NetworkService::new(name)
            .with_payload(Payload::parse("payload", &self.payload.unwrap_or_default())?)
            .with_selector(ServiceSelector::parse("selector", self.selector.0)?)
            .with_policy(policy.transpose()?.unwrap_or_default())
            .with_rebalance(rebalance.transpose()?.unwrap_or_default())
            .with_routes(prefixes("routes", &self.routes)?)?
            .with_dns(dns.collect::<Result<_, _>>()?)?
            .with_mtu(mtu)
            .with_matches(matches.collect::<Result<_, _>>()?)?
            .with_prefixes(
                prefixes("prefixes", &self.prefixes)?,
                prefixes("excludedPrefixes", &self.excluded_prefixes)?,
            )
    }
}

impl MatchForm {
    fn rule(self) -> Result<Match, Invalid> {
        let route = |(i, route): (usize, RouteForm)| {
            let field = format!("routes[{i}].destinationSelector");
            let destination_selector = MatchSelector::parse(&field, route.destination_selector.0)?;
            Ok(Destination {
                destination_selector,
                weight: route.weight,
            })
        };
        Ok(Match {
            source_selector: MatchSelector::parse("sourceSelector", self.source_selector.0)?,
            routes: self
                .routes
                .into_iter()
                .enumerate()
                .map(route)
                .collect::<Result<_, Invalid>>()?,
            fallthrough: self.fallthrough,
            metadata: self
                .metadata
                .map(|form| Labels::parse("metadata.labels", form.labels.0))
                .transpose()?,
        })
    }
}

impl From<&NetworkService> for Document<ServiceSpec> {
    fn from(service: &NetworkService) -> Self {
        let texts = |prefixes: &[ipnet::IpNet]| prefixes.iter().map(ToString::to_string).collect();
        let dns = |one: &DnsConfig| DnsForm {
            servers: one.servers().iter().map(ToString::to_string).collect(),
            search_domains: one.search_domains().iter().map(ToString::to_string).collect(),
        };
        let rebalance = Some(service.rebalance()).filter(|one| *one != Rebalance::default());
        let spec = ServiceSpec {
            metadata: None,
            payload: Some(service.payload().to_string()),
            selector: Pairs(service.selector().pairs()),
            matches: service.matches().iter().map(MatchForm::from).collect(),
            policy: Some(service.policy().as_str().to_owned()),
            prefixes: texts(service.prefixes()),
            excluded_prefixes: texts(service.excluded_prefixes()),
            mtu: service.mtu().map(Mtu::octets),
            rebalance: rebalance.map(|one| one.to_string()),
            routes: texts(service.routes()),
            dns: service.dns().iter().map(dns).collect(),
        };
        Self::new(ObjectKind::NetworkService, service.name().as_str(), spec)
    }
}

impl From<&Match> for MatchForm {
    fn from(rule: &Match) -> Self {
        let route = |route: &Destination| RouteForm {
            destination_selector: Pairs(route.destination_selector.clone().into()),
            weight: route.weight,
        };
        Self {
            source_selector: Pairs(rule.source_selector.clone().into()),
            routes: rule.routes.iter().map(route).collect(),
            fallthrough: rule.fallthrough,
            metadata: rule.metadata.as_ref().map(|labels| LabelsForm {
                labels: pairs(labels),
            }),
        }
    }
}
