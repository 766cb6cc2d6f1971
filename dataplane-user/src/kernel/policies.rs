//! Policies that outlive their interfaces: the kernel takes the routes away with an interface, but not the rules.

use std::collections::BTreeSet;

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    desired::NetnsRef,
    netlink::rule,
    netns::{self, all_failed, visit},
    observed::{Look, Observed},
};

impl Kernel {
    pub(super) fn sweep_policies(&self, namespaces: &[&NetnsRef]) -> Results<()> {
        let places: Vec<_> = namespaces.iter().map(|netns| (*netns, ())).collect();
        let swept = visit(&places, self.own, |netlink, places| {
            let swept = rule::sweep(netlink);
            match swept {
                Ok(()) => places.iter().map(|_| Ok(())).collect(),
                Err(error) => all_failed(&error, places.len()),
            }
        });
        let result = |(netns, swept): (&&NetnsRef, _)| match swept {
            Ok(Err(error)) => {
                let path = netns.path.display();
                Err(OpError::kernel(format!(
                    "cannot remove policies of gone interfaces in {path}: {error}"
                )))
            }
            // With the namespace its rules are gone.
            Ok(Ok(())) | Err(_) => Ok(()),
        };
        namespaces.iter().zip(swept).map(result).collect()
    }

    /// Looks for leftovers in namespaces that no wire is known in, once after the start and once after each full look that
    /// found pairs which nobody wants: nothing says where the other ends of those are, so their namespaces are found
    /// when they are gone.
    pub(super) fn look_everywhere(&mut self, looks: &[Look<'_>], observed: &mut Observed) {
        let wanted: BTreeSet<_> = looks.iter().map(|look| &look.host).collect();
        let unwanted = |(host, found): (&_, &crate::observed::HostInterface)| {
            found.managed.is_some() && !wanted.contains(host)
        };
        if observed.interfaces.iter().any(unwanted) {
            self.strays_anywhere = true;
            return;
        }
        if !std::mem::take(&mut self.strays_anywhere) {
            return;
        }
        let everywhere = netns::everywhere();
        let places: Vec<_> = everywhere.iter().map(|netns| (netns, ())).collect();
        let found = visit(&places, self.own, |netlink, places| {
            let has = rule::strays(netlink).map(|strays| !strays.is_empty());
            places.iter().map(|_| Ok(matches!(has, Ok(true)))).collect()
        });
        let strays = everywhere
            .iter()
            .zip(found)
            .filter(|(_, found)| matches!(found, Ok(Ok(true))));
        observed
            .stray_policies
            .extend(strays.map(|(netns, _)| netns.clone()));
    }
}
