//! Looking at the kernel: everything of ours, or the interfaces of a few wires.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{Kernel, indexes::Indexes, inside::Place, unreadable};
use crate::{
    datapath::ObserveError,
    desired::{IfName, VethEnd},
    netlink::link::{self, LinkState},
    observed::{HostInterface, Look, Observed, Obstacle, Scope, Want, split_numbers},
    ownership::Managed,
};

impl Kernel {
    pub(super) fn look(&mut self, scope: &Scope<'_>) -> Result<Observed, ObserveError> {
        let generation = self
            .loaded
            .generation
            .get()
            .map_err(unreadable("the generation word"))?;
        let mut observed = Observed {
            generation,
            ..Observed::default()
        };
        let links = if scope.everything {
            self.all_links(scope)
        } else {
            self.links_of(&scope.looks)
        };
        let links = links.map_err(unreadable("interfaces"))?;
        self.note_links(&links, scope.everything, &mut observed)?;
        self.note_positions(scope, &mut observed)?;
        self.note_splits(scope, &mut observed)
            .map_err(unreadable("splits"))?;
        self.look_inside(scope, &links, &mut observed)?;
        if scope.everything {
            self.look_everywhere(&scope.looks, &mut observed);
        }
        Ok(observed)
    }

    /// Interfaces that are ours, have our program or an entry, or are looked for.
    fn all_links(&mut self, scope: &Scope<'_>) -> io::Result<BTreeMap<IfName, LinkState>> {
        let mut names: BTreeSet<IfName> = self.loaded.attachments.recorded()?.into_iter().collect();
        names.extend(scope.looks.iter().map(|look| look.host.clone()));
        let positions: BTreeSet<u32> = self
            .loaded
            .positions
            .all()?
            .into_iter()
            .map(|(index, _)| index)
            .collect();
        let node = &self.scope;
        let wanted = |link: &LinkState| names.contains(&link.name) || positions.contains(&link.index);
        let group = self.group;
        let strangers = std::cell::Cell::new(false);
        let indexes = std::cell::RefCell::new(Vec::new());
        let links = link::all(&mut self.netlink, |link| {
            indexes.borrow_mut().push(link.index);
            let ours = Managed::recognise(node, link.index, &link.name, link.alias.as_deref()).is_some();
            strangers.set(strangers.get() || (!ours && group == Some(link.group)));
            ours || wanted(link)
        })?;
        if strangers.get() {
            self.group = None;
        }
        // An index with an entry and without an interface is not free: the entry would lead into another wire.
        let used = indexes.into_inner().into_iter().chain(positions);
        self.indexes = Indexes::new(self.max_wires, used);
        Ok(links.into_iter().map(|link| (link.name.clone(), link)).collect())
    }

    fn links_of(&mut self, looks: &[Look<'_>]) -> io::Result<BTreeMap<IfName, LinkState>> {
        let answers = self
            .netlink
            .batch(looks.iter().map(|look| link::get(&look.host)).collect())?;
        let mut links = BTreeMap::new();
        for (look, answer) in looks.iter().zip(answers) {
            links.extend(link::found(answer)?.map(|link| (look.host.clone(), link)));
        }
        Ok(links)
    }

    fn note_links(
        &mut self,
        links: &BTreeMap<IfName, LinkState>,
        everything: bool,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let recorded = if everything {
            self.loaded
                .attachments
                .recorded()
                .map_err(unreadable("attachments"))?
                .into_iter()
                .collect()
        } else {
            BTreeSet::new()
        };
        let places: Vec<_> = links.iter().map(|(name, link)| (name, link.index)).collect();
        let attached = self.loaded.attachments.attached(&mut self.netlink, &places);
        let attached = attached.map_err(unreadable("attachments"))?;
        for (name, link) in links {
            let managed = Managed::recognise(&self.scope, link.index, name, link.alias.as_deref());
            let interface = HostInterface {
                index: link.index,
                mtu: link.mtu,
                settled: managed.is_none() || link.settled,
                managed,
                position: self
                    .loaded
                    .positions
                    .get(link.index)
                    .map_err(unreadable("positions"))?,
                attached: attached.contains(&link.index),
                inner: None,
            };
            observed.interfaces.insert(name.clone(), interface);
        }
        observed.stray_attachments = recorded
            .into_iter()
            .filter(|name| !links.contains_key(name))
            .collect();
        Ok(())
    }

    fn note_positions(&mut self, scope: &Scope<'_>, observed: &mut Observed) -> Result<(), ObserveError> {
        let known: BTreeSet<u32> = observed
            .interfaces
            .values()
            .map(|interface| interface.index)
            .collect();
        let positions = if scope.everything {
            self.loaded.positions.all()
        } else {
            let gone = scope.indexes.iter().filter(|index| !known.contains(*index));
            let entry = |index: &u32| {
                Some(
                    self.loaded
                        .positions
                        .get(*index)
                        .transpose()?
                        .map(|found| (*index, found)),
                )
            };
            gone.filter_map(entry).collect()
        };
        let positions = positions.map_err(unreadable("positions"))?;
        observed.stray_positions = positions
            .into_iter()
            .filter(|(index, _)| !known.contains(index))
            .collect();
        if !scope.everything {
            let recorded = self
                .loaded
                .attachments
                .recorded_of(scope.looks.iter().map(|look| &look.host));
            let recorded = recorded
                .into_iter()
                .filter(|name| !observed.interfaces.contains_key(name));
            observed.stray_attachments = recorded.collect();
        }
        Ok(())
    }

    /// The splits that the entries name; or all, for there may be some that none does.
    fn note_splits(&self, scope: &Scope<'_>, observed: &mut Observed) -> io::Result<()> {
        if scope.everything {
            observed.splits.extend(self.loaded.splits.all()?);
            return Ok(());
        }
        let named: BTreeSet<u32> = observed
            .positions()
            .flat_map(|(_, position)| split_numbers(&position))
            .collect();
        for number in named {
            let split = self.loaded.splits.get(number)?;
            observed.splits.extend(split.map(|split| (number, split)));
        }
        Ok(())
    }

    /// Looks at the workloads' ends, and finds out what stands in the way.
    fn look_inside(
        &mut self,
        scope: &Scope<'_>,
        links: &BTreeMap<IfName, LinkState>,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let mut places = Vec::new();
        for look in &scope.looks {
            let managed = observed
                .interfaces
                .get(&look.host)
                .map(|interface| interface.managed.is_some());
            match (look.want, managed) {
                (Want::Veth(_), Some(false)) => {
                    let obstacle = Obstacle::HostNameTaken {
                        host: look.host.clone(),
                    };
                    // It is not ours: the diff must not see it.
                    observed.interfaces.remove(&look.host);
                    observed.obstacles.insert(look.host.clone(), obstacle);
                }
                // Nothing is there yet. Whether the name is free is found out by making it, which costs less than a
                // visit; a full pass does look, so that a wire that fails again and again is not made each time.
                (Want::Veth(_), None) if !scope.everything && !scope.thorough => {}
                (Want::Veth(end), _) => places.push((look, end)),
                (Want::Existing, None) => {
                    let obstacle = Obstacle::InterfaceGone {
                        name: look.host.clone(),
                    };
                    observed.obstacles.insert(look.host.clone(), obstacle);
                }
                (Want::Existing | Want::Nothing, _) => {}
            }
        }
        let mut visits = Vec::with_capacity(places.len());
        for (look, end) in &places {
            let place = Place {
                name: &end.name,
                host: links.get(&look.host),
                policies: look.policies,
            };
            visits.push((&end.netns, place));
        }
        for ((look, end), found) in places.iter().zip(super::inside::look(&visits, self.own)) {
            let found = match found {
                Ok(found) => found.map_err(unreadable("a workload's interface"))?,
                Err(obstacle) => {
                    observed.obstacles.insert(look.host.clone(), obstacle);
                    continue;
                }
            };
            if found.strays {
                observed.stray_policies.insert(end.netns.clone());
            }
            match found.found {
                super::inside::Found::Ours(inner) => {
                    if let Some(interface) = observed.interfaces.get_mut(&look.host) {
                        interface.inner = Some(inner);
                    }
                }
                super::inside::Found::Nothing => {}
                super::inside::Found::Foreign => {
                    observed.obstacles.insert(look.host.clone(), name_taken(end));
                }
            }
        }
        Ok(())
    }
}

fn name_taken(end: &VethEnd) -> Obstacle {
    Obstacle::NameTaken {
        name: end.name.clone(),
        path: end.netns.path.display().to_string(),
    }
}
