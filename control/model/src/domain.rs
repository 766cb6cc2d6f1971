//! Names that say which registry domain is meant.

use crate::{
    ConnectionRequest, EndpointName, EndpointQuery, EndpointRegistration, Invalid, RegistryDomain,
    ServiceName, ServiceQuery,
};

fn is_own(domain: Option<&str>, own: Option<&RegistryDomain>) -> bool {
    domain.is_some() && domain == own.map(RegistryDomain::as_str)
}

impl ConnectionRequest {
    /// Says one domain of service and endpoint: of two names the one that has a domain says it for both, and the `own` one is
    /// left out.
    pub fn settle_domain(&mut self, own: Option<&RegistryDomain>) -> Result<(), Invalid> {
        if is_own(self.service.domain(), own) {
            self.service = self.service.local();
        }
        let Some(endpoint) = &mut self.endpoint else {
            return Ok(());
        };
        if is_own(endpoint.domain(), own) {
            *endpoint = endpoint.local();
            return self
                .service
                .domain()
                .map_or(Ok(()), |domain| Err(elsewhere(endpoint, domain)));
        }
        match (self.service.domain(), endpoint.domain()) {
            (None, Some(domain)) => {
                self.service = self.service.in_domain(&RegistryDomain::parse("domain", domain)?);
                Ok(())
            }
            (Some(domain), None) => {
                *endpoint = endpoint.in_domain(&RegistryDomain::parse("domain", domain)?);
                Ok(())
            }
            (Some(domain), Some(other)) if domain != other => Err(elsewhere(endpoint, domain)),
            _ => Ok(()),
        }
    }
}

fn elsewhere(endpoint: &EndpointName, domain: &str) -> Invalid {
    let rule = format!("the service is in registry domain \"{domain}\": so are its endpoints");
    Invalid::new(
        "connection.network_service_endpoint_name",
        endpoint.as_str(),
        rule,
    )
}

impl EndpointRegistration {
    /// Says one domain of the endpoint and what it offers, likewise.
    #[must_use]
    pub fn settle_domain(self, own: Option<&RegistryDomain>) -> Self {
        let local = |service: &ServiceName| is_own(service.domain(), own);
        let registration = self.renamed(
            |name| {
                if is_own(name.domain(), own) {
                    name.local()
                } else {
                    name
                }
            },
            |service| if local(&service) { service.local() } else { service },
        );
        let mut domains = registration.services().keys().map(ServiceName::domain);
        let first = domains
            .next()
            .flatten()
            .and_then(|domain| domain.parse::<RegistryDomain>().ok());
        let of_name = registration
            .name()
            .domain()
            .and_then(|domain| domain.parse::<RegistryDomain>().ok());
        match (of_name, first) {
            (Some(domain), _) => registration.renamed(
                |name| name,
                |service| {
                    if service.domain().is_none() {
                        service.in_domain(&domain)
                    } else {
                        service
                    }
                },
            ),
            (None, Some(domain)) => registration.renamed(|name| name.in_domain(&domain), |service| service),
            (None, None) => registration,
        }
    }

    /// The domain that it is for; `None`: this one.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.name().domain()
    }
}

/// `NAME@OWN` is `NAME`.
fn without_own(name: &mut String, own: Option<&RegistryDomain>) {
    if let Some((local, domain)) = name.split_once('@')
        && is_own(Some(domain), own)
    {
        *name = local.to_owned();
    }
}

fn domain_in(name: &str) -> Option<&str> {
    name.split_once('@').map(|(_, domain)| domain)
}

impl ServiceQuery {
    /// Leaves the own domain out.
    pub fn settle_domain(&mut self, own: Option<&RegistryDomain>) {
        self.name.iter_mut().for_each(|name| without_own(name, own));
    }

    /// The domain that it is about; `None`: this one.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.name.as_deref().and_then(domain_in)
    }
}

impl EndpointQuery {
    /// Leaves the own domain out.
    pub fn settle_domain(&mut self, own: Option<&RegistryDomain>) {
        let names = self.name.iter_mut().chain(&mut self.services);
        names.for_each(|name| without_own(name, own));
        let labels = std::mem::take(&mut self.labels).into_iter();
        self.labels = labels
            .map(|(mut service, labels)| {
                without_own(&mut service, own);
                (service, labels)
            })
            .collect();
    }

    /// The domain that it is about; `None`: this one.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        let names = self.name.iter().chain(&self.services).chain(self.labels.keys());
        names.into_iter().find_map(|name| domain_in(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Labels;

    fn own() -> RegistryDomain {
        "east".parse().unwrap()
    }

    fn request(service: &str, endpoint: &str) -> Result<(String, String), Invalid> {
        let mut request = ConnectionRequest::new("c1".parse().unwrap(), service.parse().unwrap());
        request.endpoint = Some(endpoint)
            .filter(|name| !name.is_empty())
            .map(|name| name.parse().unwrap());
        request.settle_domain(Some(&own()))?;
        let endpoint = request.endpoint.map(|name| name.to_string()).unwrap_or_default();
        Ok((request.service.to_string(), endpoint))
    }

    #[test]
    fn one_name_with_a_domain_says_it_for_both() {
        for (service, endpoint, settled) in [
            ("gold", "", ("gold", "")),
            ("gold@east", "", ("gold", "")),
            ("gold@east", "gw@east", ("gold", "gw")),
            ("gold@west", "", ("gold@west", "")),
            ("gold", "gw@west", ("gold@west", "gw@west")),
            ("gold@west", "gw", ("gold@west", "gw@west")),
            ("gold@west", "gw@west", ("gold@west", "gw@west")),
        ] {
            let (service, endpoint) = request(service, endpoint).unwrap();
            assert_eq!((service.as_str(), endpoint.as_str()), settled);
        }
        for (service, endpoint) in [("gold@west", "gw@north"), ("gold@west", "gw@east")] {
            let refused = request(service, endpoint).unwrap_err();
            assert_eq!(refused.field, "connection.network_service_endpoint_name");
        }
    }

    #[test]
    fn an_endpoint_is_registered_where_its_name_or_its_services_say() {
        for (name, service, settled) in [
            ("gw", "gold", ("gw", "gold")),
            ("gw@east", "gold@east", ("gw", "gold")),
            ("gw@floating", "gold", ("gw@floating", "gold@floating")),
            ("gw", "gold@floating", ("gw@floating", "gold@floating")),
        ] {
            let services = BTreeMap::from([(service.parse().unwrap(), Labels::default())]);
            let registration = EndpointRegistration::new(name.parse().unwrap(), services).unwrap();
            let registration = registration.settle_domain(Some(&own()));
            let service = registration.services().keys().next().unwrap().as_str();
            assert_eq!((registration.name().as_str(), service), settled);
        }
    }
}
