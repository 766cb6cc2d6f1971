//! Circuits from paths: which end lies where, and what it is called.

use std::collections::BTreeSet;

use tieline_model::{
    Attachment, Circuit, ConnectionId, EndpointName, EndpointSide, HopEnd, HopSide, IfName, NetnsRef,
    NetworkServiceEndpoint, Plumbing, Side, derive_hop_mac, derive_interface, derive_mac,
};

use crate::{Refusal, Registry, names::Held};

impl Registry {
    /// The circuits along `paths`, whose last endpoint each terminates, for the connection `id`. An end that one of
    /// `has`, its circuits so far, or an earlier path has at the same place is that end; another gets the first free
    /// name.
    pub(crate) fn circuits<'a>(
        &self,
        id: &ConnectionId,
        paths: &[Vec<EndpointName>],
        has: impl IntoIterator<Item = &'a Circuit>,
    ) -> Result<Vec<Circuit>, Refusal> {
        let known: Vec<Circuit> = has.into_iter().cloned().collect();
        let mut draft = Draft {
            registry: self,
            id,
            held: known.iter().flat_map(Held::of_circuit).collect(),
            known,
        };
        paths.iter().map(|path| draft.circuit(path)).collect()
    }
}

struct Draft<'a> {
    registry: &'a Registry,
    id: &'a ConnectionId,
    known: Vec<Circuit>,
    held: BTreeSet<Held>,
}

impl Draft<'_> {
    fn circuit(&mut self, path: &[EndpointName]) -> Result<Circuit, Refusal> {
        let missing = |name: &str| Refusal::Inconsistent {
            what: "endpoint",
            key: name.to_owned(),
        };
        let (last, passed) = path.split_last().ok_or_else(|| missing(""))?;
        let endpoints = &self.registry.tables.endpoints();
        let find = |name: &EndpointName| endpoints.get(name).ok_or_else(|| missing(name.as_str()));
        let mut hops = Vec::with_capacity(passed.len());
        for name in passed {
            hops.push(self.hop(find(name)?)?);
        }
        let circuit = Circuit {
            hops,
            endpoint: last.clone(),
            server: self.server(find(last)?)?,
        };
        self.known.push(circuit.clone());
        Ok(circuit)
    }

    fn hop(&mut self, function: &NetworkServiceEndpoint) -> Result<HopSide, Refusal> {
        let Attachment::Netns(netns) = function.attachment() else {
            return Err(Refusal::NotPassthrough {
                name: function.name().clone(),
            });
        };
        let passing = function.plumbing().filter(|plumbing| plumbing.is_passthrough());
        let plumbing = passing.unwrap_or(Plumbing::Gateway);
        let hops = self.known.iter().flat_map(|circuit| &circuit.hops);
        let same = |hop: &&HopSide| {
            hop.endpoint == *function.name()
                && hop.node == *function.node()
                && hop.netns == *netns
                && hop.plumbing == plumbing
        };
        if let Some(hop) = hops.into_iter().find(same) {
            return Ok(hop.clone());
        }
        let id = self.id;
        let mut end = |side| {
            let mac = match plumbing {
                Plumbing::Transparent => derive_hop_mac(id, function.name(), side),
                Plumbing::Gateway | Plumbing::Endpoint => derive_mac(id, side),
            };
            let interface = self.name(function, netns, side)?;
            Ok::<_, Refusal>(HopEnd { interface, mac })
        };
        Ok(HopSide {
            inside: end(Side::Endpoint)?,
            outside: end(Side::Client)?,
            endpoint: function.name().clone(),
            node: function.node().clone(),
            netns: netns.clone(),
            plumbing,
        })
    }

    fn server(&mut self, endpoint: &NetworkServiceEndpoint) -> Result<EndpointSide, Refusal> {
        let mut servers = self.known.iter().map(|circuit| &circuit.server);
        let same =
            |side: &&EndpointSide| side.node == *endpoint.node() && side.attachment == *endpoint.attachment();
        if let Some(side) = servers.find(same) {
            return Ok(side.clone());
        }
        let (interface, mac) = match endpoint.attachment() {
            Attachment::Interface(name) => (name.clone(), None),
            Attachment::Netns(netns) => {
                let name = self.name(endpoint, netns, Side::Endpoint)?;
                (name, Some(derive_mac(self.id, Side::Endpoint)))
            }
        };
        Ok(EndpointSide {
            node: endpoint.node().clone(),
            attachment: endpoint.attachment().clone(),
            interface,
            mac,
        })
    }

    fn name(
        &mut self,
        endpoint: &NetworkServiceEndpoint,
        netns: &NetnsRef,
        side: Side,
    ) -> Result<IfName, Refusal> {
        let (registry, node) = (self.registry, endpoint.node());
        let name = if endpoint.is_foreign() {
            // Which numbers are free in its namespace is known in its own domain.
            derive_interface(registry.config.domain.as_ref(), self.id, endpoint.name(), side)?
        } else {
            registry.tables.names.first_free(node, netns, side, &self.held)?
        };
        self.held.insert(Held::made(node, netns, &name));
        Ok(name)
    }
}
