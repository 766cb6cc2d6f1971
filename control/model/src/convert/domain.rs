//! `tieline.domain.v1`: what one registry domain tells another.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use tieline_proto::tieline::{agent::v1 as agent, domain::v1 as proto};

use super::{
    agent::{netns_from, netns_to},
    required,
};
use crate::{
    Attachment, Invalid, MachineId, NetworkServiceEndpoint, limits::MAX_ADDRESS_RANGES, service::check_count,
};

impl From<&NetworkServiceEndpoint> for proto::Endpoint {
    fn from(endpoint: &NetworkServiceEndpoint) -> Self {
        Self {
            endpoint: Some(endpoint.into()),
            machine: endpoint.machine().map(MachineId::to_string).unwrap_or_default(),
            netns: match endpoint.attachment() {
                Attachment::Netns(netns) => Some(netns_to(netns)),
                Attachment::Interface(_) => None,
            },
            draining: endpoint.is_draining(),
        }
    }
}

/// The endpoint as if it were declared: who has it is told by the call.
impl TryFrom<proto::Endpoint> for NetworkServiceEndpoint {
    type Error = Invalid;

    fn try_from(message: proto::Endpoint) -> Result<Self, Invalid> {
        let endpoint = Self::try_from(required("endpoint", message.endpoint)?)?;
        let netns = message
            .netns
            .filter(|_| matches!(endpoint.attachment(), Attachment::Netns(_)));
        let netns = netns
            .map(|netns: agent::NetworkNamespace| netns_from("netns", &netns))
            .transpose()?;
        let machine = Some(message.machine).filter(|machine| !machine.is_empty());
        let machine = machine
            .map(|machine| MachineId::parse("machine", &machine))
            .transpose()?;
        let endpoint = endpoint.with_machine(machine).with_draining(message.draining);
        Ok(match netns {
            Some(netns) => endpoint.with_attachment(Attachment::Netns(netns)),
            None => endpoint,
        })
    }
}

/// Ranges, first and last address both included, as messages.
pub fn ranges_to(ranges: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> Vec<proto::AddressRange> {
    let ranges = ranges.into_iter();
    ranges
        .map(|(first, last)| proto::AddressRange {
            first: first.to_string(),
            last: last.to_string(),
        })
        .collect()
}

/// The prefixes that ranges consist of; an error names `field`.
pub fn ranges_from(field: &str, ranges: &[proto::AddressRange]) -> Result<Vec<IpNet>, Invalid> {
    check_count(field, ranges.len(), MAX_ADDRESS_RANGES)?;
    let mut prefixes = Vec::new();
    for (i, range) in ranges.iter().enumerate() {
        match (range.first.parse(), range.last.parse()) {
            (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
                prefixes.extend(Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
            }
            (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) if first <= last => {
                prefixes.extend(Ipv6Subnets::new(first, last, 0).map(IpNet::V6));
            }
            _ => {
                let value = format!("{} to {}", range.first, range.last);
                let rule = "a range has two addresses of one family, the lower one first";
                return Err(Invalid::new(format!("{field}[{i}]"), value, rule));
            }
        }
    }
    Ok(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_the_prefixes_that_they_consist_of() {
        let range = |first: &str, last: &str| (first.parse().unwrap(), last.parse().unwrap());
        let message = ranges_to([
            range("10.0.0.1", "10.0.0.4"),
            range("fd00::", "fd00::ffff"),
            range("0.0.0.0", "255.255.255.255"),
        ]);
        let prefixes = ranges_from("excluded", &message).unwrap();
        let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(
            prefixes,
            [
                "10.0.0.1/32",
                "10.0.0.2/31",
                "10.0.0.4/32",
                "fd00::/112",
                "0.0.0.0/0"
            ]
        );
        for (first, last) in [("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "fd00::"), ("", "x")] {
            let range = proto::AddressRange {
                first: first.to_owned(),
                last: last.to_owned(),
            };
            assert_eq!(
                ranges_from("excluded", &[range]).unwrap_err().field,
                "excluded[0]"
            );
        }
    }
}
