//! NetworkServiceWirings in files.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use super::{Document, is_zero, selector::SelectorForm};
use crate::{
    Invalid, Labels, NetworkServiceWiring, ObjectKind, ServiceName, SourceService, TrafficSelector,
    WiringName, WiringRoute, WiringSource,
};

/// What a NetworkServiceWiring says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::yaml) struct WiringSpec {
    target: Vec<String>,
    #[serde(default, skip_serializing_if = "is_unset")]
    priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qualifiers: Option<QualifiersForm>,
    action: ActionForm,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct QualifiersForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SourceForm>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traffic: Vec<TrafficForm>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SourceForm {
    #[serde(deserialize_with = "source_service", skip_serializing_if = "Option::is_none")]
    source_service: Option<String>,
    #[serde(skip_serializing_if = "SelectorForm::is_empty")]
    pod_selector: SelectorForm,
    #[serde(skip_serializing_if = "SelectorForm::is_empty")]
    client_selector: SelectorForm,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TrafficForm {
    #[serde(skip_serializing_if = "String::is_empty")]
    protocol: String,
    #[serde(skip_serializing_if = "PortsForm::is_empty")]
    ports: PortsForm,
    #[serde(skip_serializing_if = "String::is_empty")]
    prefix: String,
}

/// A port as number, or a range as text.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
struct PortsForm(String);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ActionForm {
    route: Vec<RouteForm>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouteForm {
    destination: DestinationForm,
    #[serde(default, skip_serializing_if = "is_zero")]
    weight: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DestinationForm {
    pod_selector: SelectorForm,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_unset(priority: &i32) -> bool {
    *priority == 0
}

/// A text. Without quotes, YAML takes `!gold-network` for a tag of nothing, which would name no source at all.
fn source_service<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct NameVisitor;

    impl Visitor<'_> for NameVisitor {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name of a service as text; put \"!NAME\" in quotes, for YAML reads ! as a tag")
        }

        fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
            Ok(Some(text.to_owned()))
        }
    }

    deserializer.deserialize_any(NameVisitor)
}

impl PortsForm {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for PortsForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortsVisitor;

        impl Visitor<'_> for PortsVisitor {
            type Value = PortsForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, or a range of ports such as 8000-8999")
            }

            fn visit_u64<E>(self, port: u64) -> Result<PortsForm, E> {
                Ok(PortsForm(port.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortsForm, E> {
                if text.is_empty() {
                    return Err(E::custom("ports are empty: leave them out"));
                }
                Ok(PortsForm(text.to_owned()))
            }
        }

        deserializer.deserialize_any(PortsVisitor)
    }
}

impl Document<WiringSpec> {
    /// The wiring, if every rule holds.
    pub(in crate::yaml) fn wiring(self) -> Result<NetworkServiceWiring, Invalid> {
        let name = WiringName::parse("metadata.name", &self.metadata.name)?;
        Labels::parse("metadata.labels", self.metadata.labels.0)?;
        self.spec.wiring(name).map_err(|e| e.within("spec"))
    }
}

impl WiringSpec {
    fn wiring(self, name: WiringName) -> Result<NetworkServiceWiring, Invalid> {
        let target = |(i, text): (usize, &String)| ServiceName::parse(&format!("target[{i}]"), text);
        let route = |(i, form): (usize, RouteForm)| {
            let field = format!("action.route[{i}].destination.podSelector");
            Ok(WiringRoute {
                pod_selector: form.destination.pod_selector.selector(&field)?,
                weight: form.weight,
            })
        };
        let qualifiers = self.qualifiers.unwrap_or_default();
        let traffic = |(i, form): (usize, &TrafficForm)| {
            let field = format!("qualifiers.traffic[{i}]");
            TrafficSelector::parse(&field, &form.protocol, &form.ports.0, &form.prefix)
        };
        let targets = self
            .target
            .iter()
            .enumerate()
            .map(target)
            .collect::<Result<_, _>>()?;
        let routes = self.action.route.into_iter().enumerate().map(route);
        let traffic = qualifiers
            .traffic
            .iter()
            .enumerate()
            .map(traffic)
            .collect::<Result<_, _>>()?;
        NetworkServiceWiring::new(name, targets, routes.collect::<Result<_, Invalid>>()?)
            .map_err(|e| {
                if e.field.starts_with("target") {
                    e
                } else {
                    e.within("action")
                }
            })?
            .with_priority(self.priority)?
            .with_source(qualifiers.source.unwrap_or_default().source()?)
            .with_traffic(traffic)
            .map_err(|e| e.within("qualifiers"))
    }
}

impl SourceForm {
    fn source(self) -> Result<WiringSource, Invalid> {
        let field = |part: &str| format!("qualifiers.source.{part}");
        let service = self.source_service.as_deref();
        let service = service.map(|text| SourceService::parse(&field("sourceService"), text));
        Ok(WiringSource {
            source_service: service.transpose()?,
            pod_selector: self.pod_selector.selector(&field("podSelector"))?,
            client_selector: self.client_selector.selector(&field("clientSelector"))?,
        })
    }
}

impl From<&NetworkServiceWiring> for Document<WiringSpec> {
    fn from(wiring: &NetworkServiceWiring) -> Self {
        let source = wiring.source();
        let form = SourceForm {
            source_service: source.source_service.as_ref().map(ToString::to_string),
            pod_selector: SelectorForm::from(&source.pod_selector),
            client_selector: SelectorForm::from(&source.client_selector),
        };
        let traffic = |one: &TrafficSelector| {
            let [protocol, ports, prefix] = one.texts();
            TrafficForm {
                protocol,
                ports: PortsForm(ports),
                prefix,
            }
        };
        let route = |one: &WiringRoute| RouteForm {
            destination: DestinationForm {
                pod_selector: SelectorForm::from(&one.pod_selector),
            },
            weight: one.weight,
        };
        let qualifiers = QualifiersForm {
            source: Some(form).filter(|_| *source != WiringSource::default()),
            traffic: wiring.traffic().iter().map(traffic).collect(),
        };
        let said = qualifiers.source.is_some() || !qualifiers.traffic.is_empty();
        let spec = WiringSpec {
            target: wiring.target().iter().map(ToString::to_string).collect(),
            priority: wiring.priority(),
            qualifiers: Some(qualifiers).filter(|_| said),
            action: ActionForm {
                route: wiring.route().iter().map(route).collect(),
            },
        };
        Self::new(ObjectKind::NetworkServiceWiring, wiring.name().as_str(), spec)
    }
}
