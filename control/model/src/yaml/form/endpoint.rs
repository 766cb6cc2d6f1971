//! NetworkServiceEndpoints in files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Document, LabelsForm, Pairs, pairs};
use crate::{
    Attachment, EndpointName, IfName, Invalid, Labels, NetnsRef, NetworkServiceEndpoint, NodeName,
    ObjectKind, Plumbing, ServiceName,
};

/// What a NetworkServiceEndpoint says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::yaml) struct EndpointSpec {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plumbing: Option<String>,
    /// What the operator vouches for, whatever the service.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    labels: Pairs<String>,
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

impl Document<EndpointSpec> {
    /// The endpoint, if every rule holds. `node` is where it is if it does not say.
    pub(in crate::yaml) fn endpoint(
        self,
        node: Option<&NodeName>,
    ) -> Result<NetworkServiceEndpoint, Invalid> {
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
        let plumbing = self
            .plumbing
            .as_deref()
            .map(|text| Plumbing::parse("plumbing", text));
        let attested = Labels::parse("labels", self.labels.0)?;
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
        let declared = NetworkServiceEndpoint::declared(name, services, node, attachment)?;
        Ok(declared
            .with_plumbing(plumbing.transpose()?)?
            .with_attested(attested))
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
            plumbing: endpoint.plumbing().map(|one| one.to_string()),
            labels: pairs(endpoint.attested()),
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
