//! The shape of the files, and the way from there to valid objects and back.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use super::API_VERSION;
use crate::{
    Attachment, Destination, EndpointName, IfName, Invalid, Labels, Match, MatchSelector, Mtu, NetnsRef,
    NetworkService, NetworkServiceEndpoint, NodeName, ObjectKind, Payload, Policy, ServiceName,
    net::parse_prefix,
};

/// One object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document<S> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    labels: Pairs<String>,
}

/// What a NetworkService says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ServiceSpec {
    /// The early NSM form repeats the object's name here.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    selector: Pairs<SelectorValue>,
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

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LabelsForm {
    labels: Pairs<String>,
}

/// What a NetworkServiceEndpoint says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EndpointSpec {
    #[serde(alias = "network_service_names")]
    network_service_names: Vec<String>,
    #[serde(
        default,
        alias = "network_service_labels",
        skip_serializing_if = "Pairs::is_empty"
    )]
    network_service_labels: Pairs<LabelsForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<NetnsForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NetnsForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A map whose keys do not repeat.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Pairs<V>(BTreeMap<String, V>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Pairs<V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of key: value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if pairs.contains_key(&key) {
                        return Err(A::Error::custom(format!(
                            "the key \"{key}\" is given twice in this map"
                        )));
                    }
                    pairs.insert(key, map.next_value()?);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

/// One value of a selector.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct SelectorValue(String);

impl<'de> Deserialize<'de> for SelectorValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl Visitor<'_> for ValueVisitor {
            type Value = SelectorValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "one label value; an ordered list of functions in a selector is not supported yet",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<SelectorValue, E> {
                Ok(SelectorValue(text.to_owned()))
            }
        }

        deserializer.deserialize_str(ValueVisitor)
    }
}

impl<S> Document<S> {
    fn new(kind: ObjectKind, name: &str, spec: S) -> Self {
        let metadata = Metadata {
            name: name.to_owned(),
            namespace: None,
            labels: Pairs::default(),
        };
        Self {
            api_version: API_VERSION.to_owned(),
            kind: kind.to_string(),
            metadata,
            spec,
        }
    }

    /// The name as it is written.
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }
}

impl Document<ServiceSpec> {
    /// The service, if every rule holds.
    pub(super) fn service(self) -> Result<NetworkService, Invalid> {
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
        let policy = match self.policy.as_deref() {
            None => Policy::default(),
            Some(text) if text == Policy::RoundRobin.as_str() => Policy::RoundRobin,
            Some(text) => return Err(Invalid::new("policy", text, "a policy is RoundRobin")),
        };
        let matches = self.matches.into_iter().enumerate();
        let matches = matches.map(|(i, rule)| rule.rule().map_err(|e| e.within(&format!("matches[{i}]"))));
        let mtu = self.mtu.map(|octets| Mtu::parse("mtu", octets)).transpose()?;
        let selector = self.selector.0.into_iter().map(|(key, value)| (key, value.0));
        NetworkService::new(name)
            .with_payload(Payload::parse("payload", &self.payload.unwrap_or_default())?)
            .with_selector(Labels::parse("selector", selector)?)
            .with_policy(policy)
            .with_mtu(mtu)
            .with_matches(matches.collect::<Result<_, _>>()?)?
            .with_prefixes(
                prefixes("prefixes", &self.prefixes)?,
                prefixes("excludedPrefixes", &self.excluded_prefixes)?,
            )
    }
}

fn prefixes(field: &str, texts: &[String]) -> Result<Vec<ipnet::IpNet>, Invalid> {
    texts
        .iter()
        .enumerate()
        .map(|(i, text)| parse_prefix(&format!("{field}[{i}]"), text))
        .collect()
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

impl Document<EndpointSpec> {
    /// The endpoint, if every rule holds. `node` is where it is if it does not say.
    pub(super) fn endpoint(self, node: Option<&NodeName>) -> Result<NetworkServiceEndpoint, Invalid> {
        let name = EndpointName::parse("metadata.name", &self.metadata.name)?;
        Labels::parse("metadata.labels", self.metadata.labels.0)?;
        self.spec.endpoint(name, node).map_err(|e| e.within("spec"))
    }
}

impl EndpointSpec {
    fn endpoint(
        self,
        name: EndpointName,
        node: Option<&NodeName>,
    ) -> Result<NetworkServiceEndpoint, Invalid> {
        let node = match (&self.node, node) {
            (Some(text), _) => NodeName::parse("node", text)?,
            (None, Some(node)) => node.clone(),
            (None, None) => return Err(Invalid::new("node", "", "say which node the endpoint is on")),
        };
        let attachment = match (&self.netns, &self.interface) {
            (Some(netns), None) => Attachment::Netns(netns.netns().map_err(|e| e.within("netns"))?),
            (None, Some(name)) => Attachment::Interface(IfName::parse("interface", name)?),
            (netns, _) => {
                let value = if netns.is_some() { "both" } else { "" };
                let rule = "write netns (name, path or pid) or interface, one of them";
                return Err(Invalid::new("netns", value, rule));
            }
        };
        let mut labels = self.network_service_labels.0;
        let mut services = BTreeMap::new();
        for (i, text) in self.network_service_names.iter().enumerate() {
            let service = ServiceName::parse(&format!("networkServiceNames[{i}]"), text)?;
            let own = labels.remove(text).unwrap_or_default().labels.0;
            services.insert(
                service,
                Labels::parse(&format!("networkServiceLabels[{text}].labels"), own)?,
            );
        }
        if let Some(text) = labels.keys().next() {
            let rule = "labels for a service that is not in networkServiceNames: add it there";
            return Err(Invalid::new("networkServiceLabels", text, rule));
        }
        if services.is_empty() {
            return Err(Invalid::new(
                "networkServiceNames",
                "",
                "an endpoint offers at least one service",
            ));
        }
        NetworkServiceEndpoint::declared(name, services, node, attachment)
    }
}

impl NetnsForm {
    fn netns(&self) -> Result<NetnsRef, Invalid> {
        match (&self.name, &self.path, self.pid) {
            (Some(name), None, None) => NetnsRef::parse("name", &format!("/run/netns/{name}"), None),
            (None, Some(path), None) => NetnsRef::parse("path", path, None),
            (None, None, Some(pid)) => NetnsRef::parse("pid", &format!("/proc/{pid}/ns/net"), None),
            _ => Err(Invalid::new("", "", "write one of name, path, pid")),
        }
    }
}

fn pairs(labels: &Labels) -> Pairs<String> {
    Pairs(
        labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

impl From<&NetworkService> for Document<ServiceSpec> {
    fn from(service: &NetworkService) -> Self {
        let texts = |prefixes: &[ipnet::IpNet]| prefixes.iter().map(ToString::to_string).collect();
        let selector = service
            .selector()
            .iter()
            .map(|(key, value)| (key.to_owned(), SelectorValue(value.to_owned())));
        let spec = ServiceSpec {
            metadata: None,
            payload: Some(service.payload().to_string()),
            selector: Pairs(selector.collect()),
            matches: service.matches().iter().map(MatchForm::from).collect(),
            policy: Some(service.policy().as_str().to_owned()),
            prefixes: texts(service.prefixes()),
            excluded_prefixes: texts(service.excluded_prefixes()),
            mtu: service.mtu().map(Mtu::octets),
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

impl From<&NetworkServiceEndpoint> for Document<EndpointSpec> {
    fn from(endpoint: &NetworkServiceEndpoint) -> Self {
        let labelled = endpoint
            .services()
            .iter()
            .filter(|(_, labels)| !labels.is_empty());
        let labels = labelled.map(|(name, labels)| {
            (
                name.to_string(),
                LabelsForm {
                    labels: pairs(labels),
                },
            )
        });
        let (netns, interface) = match endpoint.attachment() {
            Attachment::Netns(netns) => (Some(NetnsForm::from(netns)), None),
            Attachment::Interface(name) => (None, Some(name.to_string())),
        };
        let spec = EndpointSpec {
            network_service_names: endpoint.services().keys().map(ToString::to_string).collect(),
            network_service_labels: Pairs(labels.collect()),
            node: Some(endpoint.node().to_string()),
            netns,
            interface,
        };
        Self::new(ObjectKind::NetworkServiceEndpoint, endpoint.name().as_str(), spec)
    }
}

impl From<&NetnsRef> for NetnsForm {
    fn from(netns: &NetnsRef) -> Self {
        match netns.path().strip_prefix("/run/netns/") {
            Some(name) => Self {
                name: Some(name.to_owned()),
                ..Self::default()
            },
            None => Self {
                path: Some(netns.path().to_owned()),
                ..Self::default()
            },
        }
    }
}
