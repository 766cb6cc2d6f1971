//! NetworkServiceWiring: which traffic for a service goes to which of its endpoints.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Invalid, Operator, RegistryDomain, Requirement, Selector, ServiceName, TrafficSelector, WiringName,
    limits::{MAX_DESTINATIONS, MAX_PRIORITY, MAX_TARGETS, MAX_TRAFFIC, MAX_WEIGHT},
    service::check_count,
    text::text_form,
};

/// Whether a source offers a service: `gold-network` when it does, `!gold-network` when it does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceService {
    /// Whether it must not.
    pub negated: bool,
    /// The service.
    pub service: ServiceName,
}

impl SourceService {
    /// Reads `SERVICE` or `!SERVICE`; an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let (negated, name) = match text.strip_prefix('!') {
            Some(name) => (true, name.trim_start()),
            None => (false, text),
        };
        Ok(Self {
            negated,
            service: ServiceName::parse(field, name)?,
        })
    }
}

text_form!(SourceService, "source_service");

impl fmt::Display for SourceService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negated { "!" } else { "" };
        write!(f, "{sign}{}", self.service)
    }
}

/// Whose traffic a wiring is about: all of these hold. Empty: everybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WiringSource {
    /// Whether the source is an endpoint of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_service: Option<SourceService>,
    /// By what is proven of the source.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub pod_selector: Selector,
    /// By what the client of the connection says of itself, also where the source is a function on its path.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub client_selector: Selector,
}

impl WiringSource {
    /// Whether it names its sources positively: an endpoint that it applies to then is a function that passes packets
    /// on, and not one that they end at.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.source_service.as_ref().is_some_and(|source| !source.negated) || self.names_labels()
    }

    /// Whether it names its sources by labels that they have.
    #[must_use]
    pub fn names_labels(&self) -> bool {
        let has = |term: &Requirement| matches!(term.operator(), Operator::In | Operator::Exists);
        self.pod_selector.terms().iter().any(has)
    }
}

/// One destination of a wiring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WiringRoute {
    /// By what is proven of the endpoint and, for keys of which nothing is, by the labels that it registered.
    #[serde(default)]
    pub pod_selector: Selector,
    /// Its share of connections among the wiring's destinations; 0 in all of them means equal shares, 0 in some means
    /// none for these.
    #[serde(default)]
    pub weight: u32,
}

/// A rule that overrides how endpoints of its target services are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkServiceWiring {
    name: WiringName,
    target: Vec<ServiceName>,
    priority: i32,
    source: WiringSource,
    traffic: Vec<TrafficSelector>,
    route: Vec<WiringRoute>,
}

impl NetworkServiceWiring {
    /// The same as it is known outside of `domain`, whose rule it is.
    #[must_use]
    pub fn in_domain(mut self, domain: &RegistryDomain) -> Self {
        self.name = self.name.in_domain(domain);
        for target in &mut self.target {
            *target = target.in_domain(domain);
        }
        let source = self.source.source_service.as_mut();
        if let Some(source) = source.filter(|source| source.service.domain().is_none()) {
            source.service = source.service.in_domain(domain);
        }
        self
    }

    /// A wiring of all traffic for `target` to `route`, of which there is at least one each.
    pub fn new(name: WiringName, target: Vec<ServiceName>, route: Vec<WiringRoute>) -> Result<Self, Invalid> {
        check_count("target", target.len(), MAX_TARGETS)?;
        check_count("route", route.len(), MAX_DESTINATIONS)?;
        if target.is_empty() {
            return Err(Invalid::new("target", "", "name at least one NetworkService"));
        }
        if route.is_empty() {
            let rule =
                "say where to: at least one destination; to refuse traffic, wire it to nobody's labels";
            return Err(Invalid::new("route", "", rule));
        }
        for (i, service) in target.iter().enumerate() {
            if target.iter().take(i).any(|other| other == service) {
                return Err(Invalid::new(
                    format!("target[{i}]"),
                    service.as_str(),
                    "named twice: leave one out",
                ));
            }
        }
        for (i, one) in route.iter().enumerate() {
            let field = |part: &str| format!("route[{i}].{part}");
            if one.weight > MAX_WEIGHT {
                let rule = format!("a weight is at most {MAX_WEIGHT}");
                return Err(Invalid::new(field("weight"), one.weight.to_string(), rule));
            }
            if route
                .iter()
                .take(i)
                .any(|other| other.pod_selector == one.pod_selector)
            {
                let rule = "another destination selects the same: add their weights";
                return Err(Invalid::new(
                    field("pod_selector"),
                    one.pod_selector.to_string(),
                    rule,
                ));
            }
        }
        Ok(Self {
            name,
            target,
            priority: 0,
            source: WiringSource::default(),
            traffic: Vec::new(),
            route,
        })
    }

    /// With this priority: of several wirings that apply, the highest decides, and of these the first by name.
    pub fn with_priority(mut self, priority: i32) -> Result<Self, Invalid> {
        if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&priority) {
            let rule = format!("a priority lies between -{MAX_PRIORITY} and {MAX_PRIORITY}");
            return Err(Invalid::new("priority", priority.to_string(), rule));
        }
        self.priority = priority;
        Ok(self)
    }

    /// Only for these sources.
    #[must_use]
    pub fn with_source(mut self, source: WiringSource) -> Self {
        self.source = source;
        self
    }

    /// Only for this part of a connection's traffic: what one of these selects.
    pub fn with_traffic(mut self, traffic: Vec<TrafficSelector>) -> Result<Self, Invalid> {
        check_count("traffic", traffic.len(), MAX_TRAFFIC)?;
        for (i, one) in traffic.iter().enumerate() {
            if let Some(other) = traffic.iter().take(i).find(|other| other.covers(one)) {
                let rule = format!("{other}, which comes before, selects all of this: leave it out");
                return Err(Invalid::new(format!("traffic[{i}]"), one.to_string(), rule));
            }
        }
        self.traffic = traffic;
        Ok(self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &WiringName {
        &self.name
    }

    /// The services that it is about.
    #[must_use]
    pub fn target(&self) -> &[ServiceName] {
        &self.target
    }

    /// Higher goes first.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Whose traffic it is about.
    #[must_use]
    pub fn source(&self) -> &WiringSource {
        &self.source
    }

    /// Which part of a connection's traffic; empty: all.
    #[must_use]
    pub fn traffic(&self) -> &[TrafficSelector] {
        &self.traffic
    }

    /// Where to.
    #[must_use]
    pub fn route(&self) -> &[WiringRoute] {
        &self.route
    }

    /// What wirings are tried by: the smallest first.
    #[must_use]
    pub fn rank(&self) -> (std::cmp::Reverse<i32>, &WiringName) {
        (std::cmp::Reverse(self.priority), &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(selectors: &[&str]) -> Vec<WiringRoute> {
        let route = |text: &&str| WiringRoute {
            pod_selector: text.parse().unwrap(),
            weight: 0,
        };
        selectors.iter().map(route).collect()
    }

    fn wiring(target: &[&str], selectors: &[&str]) -> Result<NetworkServiceWiring, Invalid> {
        let target = target.iter().map(|name| name.parse().unwrap()).collect();
        NetworkServiceWiring::new("w".parse().unwrap(), target, to(selectors))
    }

    #[test]
    fn a_wiring_that_says_nothing_or_the_same_twice_is_refused_by_its_field() {
        for (target, route, field) in [
            (&[][..], &["a=b"][..], "target"),
            (&["gold"], &[], "route"),
            (&["gold", "silver", "gold"], &["a=b"], "target[2]"),
            (&["gold"], &["a=b", "a=b"], "route[1].pod_selector"),
        ] {
            assert_eq!(wiring(target, route).unwrap_err().field, field);
        }
        let traffic = |protocol: &str, ports: &str| TrafficSelector::parse("t", protocol, ports, "").unwrap();
        let good = wiring(&["gold"], &["a=b"]).unwrap();
        assert!(good.clone().with_priority(MAX_PRIORITY + 1).is_err());
        let covered = good
            .with_traffic(vec![traffic("tcp", ""), traffic("tcp", "80")])
            .unwrap_err();
        assert_eq!(
            (covered.field.as_str(), covered.value.as_str()),
            ("traffic[1]", "tcp/80")
        );
    }

    #[test]
    fn a_source_is_positive_when_it_says_who_it_is() {
        let source = |service: &str, pod: &str| WiringSource {
            source_service: (!service.is_empty()).then(|| service.parse().unwrap()),
            pod_selector: pod.parse().unwrap(),
            client_selector: "x=y".parse().unwrap(),
        };
        assert!(source("gold", "").is_positive() && source("!gold", "a=b").is_positive());
        assert!(!source("!gold", "").is_positive() && !source("", "").is_positive());
        assert!(!source("", "a!=b,!c").is_positive() && source("", "a!=b,c").is_positive());
    }

    #[test]
    fn higher_priority_goes_first_and_then_the_name() {
        let named = |name: &str, priority| {
            NetworkServiceWiring::new(name.parse().unwrap(), vec!["gold".parse().unwrap()], to(&[""]))
                .unwrap()
                .with_priority(priority)
                .unwrap()
        };
        let mut wirings = [named("c", 1), named("b", -1), named("a", 0), named("d", 1)];
        wirings.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let names: Vec<&str> = wirings.iter().map(|wiring| wiring.name().as_str()).collect();
        assert_eq!(names, ["c", "d", "a", "b"]);
    }

    #[test]
    fn a_negated_service_reads_as_in_the_document() {
        let source: SourceService = "!gold-network".parse().unwrap();
        assert!(source.negated && source.service.as_str() == "gold-network");
        assert_eq!(source.to_string(), "!gold-network");
        assert!("!".parse::<SourceService>().is_err() && "!!a".parse::<SourceService>().is_err());
    }
}
