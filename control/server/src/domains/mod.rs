//! Other registry domains, as this control is told of them by its configuration.
//!
//! Domains do not know of each other by themselves. A [`Peer`] is one that the operator names: it may ask for what is
//! registered here, and if its address is given, what is registered there is known here ([`follow`]).

mod follow;
mod peer;

use std::collections::BTreeMap;
use std::sync::Arc;

use tieline_model::{Invalid, RegistryDomain};

pub(crate) use self::peer::{Peer, Reach, Wish};
use crate::config::PeerConfig;
use crate::failure::Failure;

/// The domains that this control knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    own: Option<RegistryDomain>,
    peers: Arc<BTreeMap<RegistryDomain, Arc<Peer>>>,
}

impl Domains {
    /// As configured. Needs a name of its own to have peers.
    pub(crate) fn new(own: Option<RegistryDomain>, configured: &[PeerConfig]) -> Result<Self, Invalid> {
        let mut peers = BTreeMap::new();
        for one in configured {
            let refused = |rule: &str| Err(Invalid::new("peer", one.domain.as_str(), rule));
            let Some(own) = &own else {
                return refused("a control without a name is unknown to others: give it one with --domain");
            };
            if one.domain == *own {
                return refused("this is the control's own name: name others only");
            }
            let peer = Peer::new(own.clone(), one)?;
            if peers.insert(one.domain.clone(), Arc::new(peer)).is_some() {
                return refused("named twice: name it once");
            }
        }
        Ok(Self {
            own,
            peers: Arc::new(peers),
        })
    }

    /// The name that others know this one by.
    pub(crate) fn own(&self) -> Option<&RegistryDomain> {
        self.own.as_ref()
    }

    /// All peers, by name.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }

    /// The peer with this name, of which `value` of `field` speaks.
    pub(crate) fn meant(
        &self,
        field: &'static str,
        value: &str,
        domain: &str,
    ) -> Result<&Arc<Peer>, Failure> {
        let peer = self.peers().find(|peer| peer.domain().as_str() == domain);
        let known = peer.filter(|peer| peer.address().is_some());
        known.ok_or_else(|| Failure::UnknownDomain {
            field,
            value: value.to_owned(),
            domain: domain.to_owned(),
        })
    }

    /// A domain that calls: only those that are named are answered.
    pub(crate) fn caller(&self, name: &str) -> Result<RegistryDomain, Failure> {
        let domain = RegistryDomain::parse("domain", name)?;
        if self.peers.contains_key(&domain) {
            Ok(domain)
        } else {
            Err(Failure::NotAPeer { domain })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerConfig {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn only_named_domains_are_known_and_none_without_a_name_of_ones_own() {
        let own: RegistryDomain = "east".parse().unwrap();
        for (own, peers) in [
            (None, vec![peer("west=http://127.0.0.1:1")]),
            (Some(&own), vec![peer("east")]),
            (Some(&own), vec![peer("west"), peer("west")]),
        ] {
            assert_eq!(Domains::new(own.cloned(), &peers).unwrap_err().field, "peer");
        }
        let domains = Domains::new(Some(own), &[peer("west=unix:///w.sock"), peer("north")]).unwrap();
        assert!(domains.meant("f", "s@west", "west").is_ok());
        for domain in ["north", "south"] {
            let refused = domains.meant("f", "s@x", domain).unwrap_err();
            assert!(
                refused.to_string().contains(&format!("--peer {domain}=ADDRESS")),
                "{refused}"
            );
        }
        assert!(domains.caller("north").is_ok());
        assert!(matches!(domains.caller("south"), Err(Failure::NotAPeer { .. })));
        assert!(matches!(
            Domains::default().caller("west"),
            Err(Failure::NotAPeer { .. })
        ));
    }
}
