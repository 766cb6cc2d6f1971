//! Wirings in `tieline.admin.v1`.

use tieline_proto::tieline::admin::v1 as proto;

use super::to_texts;
use crate::{
    Invalid, NetworkServiceWiring, Selector, ServiceName, SourceService, TrafficSelector, WiringName,
    WiringRoute, WiringSource,
    limits::{MAX_DESTINATIONS, MAX_TARGETS, MAX_TRAFFIC},
    service::check_count,
};

impl TryFrom<proto::NetworkServiceWiring> for NetworkServiceWiring {
    type Error = Invalid;

    fn try_from(message: proto::NetworkServiceWiring) -> Result<Self, Invalid> {
        check_count("target", message.target.len(), MAX_TARGETS)?;
        check_count("route", message.route.len(), MAX_DESTINATIONS)?;
        check_count("traffic", message.traffic.len(), MAX_TRAFFIC)?;
        let target = |(i, text): (usize, &String)| ServiceName::parse(&format!("target[{i}]"), text);
        let route = |(i, one): (usize, &proto::WiringRoute)| {
            let field = format!("route[{i}].pod_selector");
            Ok(WiringRoute {
                pod_selector: Selector::parse(&field, &one.pod_selector)?,
                weight: one.weight,
            })
        };
        let traffic = |(i, one): (usize, &proto::TrafficSelector)| {
            TrafficSelector::parse(&format!("traffic[{i}]"), &one.protocol, &one.ports, &one.prefix)
        };
        let targets = message.target.iter().enumerate().map(target);
        let routes = message.route.iter().enumerate().map(route);
        Self::new(
            WiringName::parse("name", &message.name)?,
            targets.collect::<Result<_, _>>()?,
            routes.collect::<Result<_, Invalid>>()?,
        )?
        .with_priority(message.priority)?
        .with_source(source_from(&message.source.unwrap_or_default()).map_err(|e| e.within("source"))?)
        .with_traffic(
            message
                .traffic
                .iter()
                .enumerate()
                .map(traffic)
                .collect::<Result<_, _>>()?,
        )
    }
}

fn source_from(message: &proto::WiringSource) -> Result<WiringSource, Invalid> {
    let text = &message.source_service;
    let service = (!text.is_empty()).then(|| SourceService::parse("source_service", text));
    Ok(WiringSource {
        source_service: service.transpose()?,
        pod_selector: Selector::parse("pod_selector", &message.pod_selector)?,
        client_selector: Selector::parse("client_selector", &message.client_selector)?,
    })
}

impl From<&NetworkServiceWiring> for proto::NetworkServiceWiring {
    fn from(wiring: &NetworkServiceWiring) -> Self {
        let source = wiring.source();
        let route = |one: &WiringRoute| proto::WiringRoute {
            pod_selector: one.pod_selector.to_string(),
            weight: one.weight,
        };
        Self {
            name: wiring.name().to_string(),
            target: to_texts(wiring.target()),
            priority: wiring.priority(),
            source: Some(proto::WiringSource {
                source_service: source
                    .source_service
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                pod_selector: source.pod_selector.to_string(),
                client_selector: source.client_selector.to_string(),
            }),
            traffic: wiring
                .traffic()
                .iter()
                .map(proto::TrafficSelector::from)
                .collect(),
            route: wiring.route().iter().map(route).collect(),
        }
    }
}

impl From<&TrafficSelector> for proto::TrafficSelector {
    fn from(traffic: &TrafficSelector) -> Self {
        let [protocol, ports, prefix] = traffic.texts();
        Self {
            protocol,
            ports,
            prefix,
        }
    }
}
