//! A machine in memory: namespaces, interfaces, the forwarding table and attachments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use dataplane_common::{
    Reason,
    abi::{FlowKey, FlowPin, Generation, Hop, HopKind, Position, Split, WireCounters},
};

use super::splits::{describe, first_of};
use crate::{
    circuit::Path as CircuitPath,
    datapath::{Datapath, Description, ObserveError, OpError, Results},
    desired::{IfName, Mac, Neighbour, NetnsId, NetnsRef, Route, VethEnd, WireId},
    liveness::{Target, WatchChange},
    observed::{HostInterface, Inner, Look, Observed, Obstacle, Owned, Scope, Survey, Want, split_numbers},
    op::{InnerChange, NewEnd, Settle},
    outcome::FailureKind,
    ownership::{Managed, NodeScope},
};

/// The datapath in memory.
#[derive(Clone, Debug)]
pub struct Fake {
    scope: NodeScope,
    max_wires: u32,
    generation: Generation,
    next_index: u32,
    host: BTreeMap<IfName, Link>,
    netns: BTreeMap<PathBuf, (NetnsId, BTreeMap<IfName, Guest>)>,
    /// Policies' rules in namespaces: the host end's index of the pair that they lead to, and the policy's place in the
    /// order. They outlive the pair.
    rules: BTreeMap<PathBuf, BTreeSet<(u32, u8)>>,
    positions: BTreeMap<u32, Position>,
    attached: BTreeSet<IfName>,
    promoted: BTreeSet<IfName>,
    counters: BTreeMap<u32, WireCounters>,
    splits: BTreeMap<u32, Split>,
    flows: BTreeMap<FlowKey, FlowPin>,
    watched: BTreeMap<WireId, Vec<(CircuitPath, Target)>>,
    now_ns: u64,
}

/// An interface of the agent's namespace.
#[derive(Clone, Debug)]
struct Link {
    index: u32,
    alias: Option<String>,
    mtu: u32,
    settled: bool,
    peer: Option<(PathBuf, IfName)>,
}

/// An interface of a workload's namespace.
#[derive(Clone, Debug)]
struct Guest {
    host: Option<IfName>,
    inner: Inner,
}

impl Fake {
    /// An empty machine.
    #[must_use]
    pub fn new(node: &str, max_wires: u32) -> Self {
        Self {
            scope: NodeScope::new(node),
            max_wires,
            generation: 0,
            next_index: 2,
            host: BTreeMap::new(),
            netns: BTreeMap::new(),
            rules: BTreeMap::new(),
            positions: BTreeMap::new(),
            attached: BTreeSet::new(),
            promoted: BTreeSet::new(),
            counters: BTreeMap::new(),
            splits: BTreeMap::new(),
            flows: BTreeMap::new(),
            watched: BTreeMap::new(),
            now_ns: 1_000_000_000,
        }
    }

    /// A workload's namespace comes into being; returns how to refer to it.
    pub fn add_netns(&mut self, path: impl Into<PathBuf>, inode: u64) -> NetnsRef {
        let (path, id) = (path.into(), NetnsId { device: 4, inode });
        self.netns.insert(path.clone(), (id, BTreeMap::new()));
        NetnsRef { path, id }
    }

    /// A namespace dies, and with it every veth that has an end in it.
    pub fn remove_netns(&mut self, path: &Path) {
        self.netns.remove(path);
        self.rules.remove(path);
        self.host
            .retain(|_, link| link.peer.as_ref().is_none_or(|(peer, _)| peer != path));
    }

    /// The namespaces that exist.
    pub fn namespaces(&self) -> impl Iterator<Item = NetnsRef> + '_ {
        self.netns.iter().map(|(path, (id, _))| NetnsRef {
            path: path.clone(),
            id: *id,
        })
    }

    /// How many rules lead to interfaces that are gone.
    #[must_use]
    pub fn stray_rules(&self) -> usize {
        let rules = self.rules.values().flatten();
        rules.filter(|(table, _)| self.is_stray(*table)).count()
    }

    fn is_stray(&self, table: u32) -> bool {
        self.host.values().all(|link| link.index != table)
    }

    /// Time passes.
    pub fn pass_time(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// A flow is seen at a split position.
    pub fn add_flow(&mut self, key: FlowKey, pin: FlowPin) {
        self.flows.insert(key, pin);
    }

    /// By which paths wires are watched.
    #[must_use]
    pub const fn watched(&self) -> &BTreeMap<WireId, Vec<(CircuitPath, Target)>> {
        &self.watched
    }

    /// Somebody else makes an interface in the agent's namespace.
    pub fn add_foreign(&mut self, name: IfName) -> u32 {
        let index = self.take_index();
        self.host.insert(
            name,
            Link {
                index,
                alias: None,
                mtu: 1500,
                settled: true,
                peer: None,
            },
        );
        index
    }

    /// Somebody deletes an interface of the agent's namespace.
    pub fn remove_interface(&mut self, name: &IfName) {
        if let Some((path, inner)) = self.host.remove(name).and_then(|link| link.peer)
            && let Some((_, guests)) = self.netns.get_mut(&path)
        {
            guests.remove(&inner);
        }
    }

    /// Packets enter at an interface.
    pub fn receive(&mut self, name: &IfName, packets: u64) {
        let position = self.index_of(name).and_then(|index| self.positions.get(&index));
        if let Some(slot) = position.map(|position| position.slot) {
            self.counters.entry(slot).or_default().packets += packets;
        }
    }

    /// A workload renames an interface.
    pub fn rename_guest(&mut self, path: &Path, from: &IfName, to: IfName) {
        if let Some((_, guests)) = self.netns.get_mut(path)
            && let Some(guest) = guests.remove(from)
        {
            if let Some(link) = guest.host.as_ref().and_then(|host| self.host.get_mut(host)) {
                link.peer = Some((path.to_owned(), to.clone()));
            }
            guests.insert(to, guest);
        }
    }

    /// A workload makes an interface in its own namespace.
    pub fn add_guest(&mut self, path: &Path, name: IfName) {
        let inner = Inner {
            mac: Mac([2, 0, 0, 0, 0, 0]),
            mtu: 1500,
            up: true,
            forwards: false,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            policies: BTreeSet::new(),
        };
        if let Some((_, guests)) = self.netns.get_mut(path) {
            guests.insert(name, Guest { host: None, inner });
        }
    }

    /// The index of an interface of the agent's namespace.
    #[must_use]
    pub fn index_of(&self, name: &IfName) -> Option<u32> {
        self.host.get(name).map(|link| link.index)
    }

    /// Where a packet that enters at `name` and belongs to no flow comes out: the interface of the agent's namespace, in
    /// force now.
    #[must_use]
    pub fn leads_to(&self, name: &IfName) -> Option<&IfName> {
        let position = self
            .positions
            .get(&self.index_of(name).filter(|_| self.attached.contains(name))?)?;
        let mut hop = position.hop_at(self.generation);
        if let Some(split) = (hop.kind() == HopKind::Split).then(|| self.splits.get(&hop.ifindex)) {
            hop = first_of(split?)?;
        }
        let Hop { ifindex, .. } = hop;
        self.host
            .iter()
            .find(|(_, link)| link.index == ifindex)
            .map(|(name, _)| name)
    }

    /// The state as text: sorted, with names in place of indexes, so that equal states have equal texts.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        let _ = self.write_dump(&mut text);
        text
    }

    fn write_dump(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "generation {}", self.generation)?;
        for (name, link) in &self.host {
            writeln!(
                text,
                "link {name} alias={} mtu={}",
                link.alias.as_deref().unwrap_or("-"),
                link.mtu
            )?;
        }
        for (path, (_, guests)) in &self.netns {
            for (name, guest) in guests {
                let peer = guest.host.as_ref().map_or("-", IfName::as_str);
                writeln!(text, "inner {} {name} peer={peer}", path.display())?;
                write_inner(text, &guest.inner)?;
            }
        }
        for (at, position) in self.positions_by_name() {
            let hop = position.hop_at(self.generation);
            let to = match hop.kind() {
                HopKind::None => "none".to_owned(),
                HopKind::Parked => "parked".to_owned(),
                HopKind::Peer => format!("peer {}", self.name_of(hop.ifindex)),
                HopKind::Egress => format!("egress {}", self.name_of(hop.ifindex)),
                HopKind::Split => match self.splits.get(&hop.ifindex) {
                    Some(split) => describe(split, |index| self.name_of(index)),
                    None => "a split that is not there".to_owned(),
                },
            };
            writeln!(text, "position {at} -> {to} flags={}", position.flags)?;
        }
        let hops = self
            .positions
            .values()
            .map(|position| position.hop_at(self.generation));
        let led_to: BTreeSet<u32> = hops
            .filter(|hop| hop.kind() == HopKind::Split)
            .map(|hop| hop.ifindex)
            .collect();
        for split in self.splits.iter().filter(|(number, _)| !led_to.contains(number)) {
            writeln!(text, "split {} that nothing leads to", split.0)?;
        }
        for name in &self.attached {
            let alone = if self.promoted.contains(name) {
                " alone"
            } else {
                ""
            };
            writeln!(text, "attached {name}{alone}")?;
        }
        Ok(())
    }

    fn positions_by_name(&self) -> BTreeMap<String, Position> {
        let named = |(index, position): (&u32, &Position)| (self.name_of(*index), *position);
        self.positions.iter().map(named).collect()
    }

    fn name_of(&self, index: u32) -> String {
        let found = self.host.iter().find(|(_, link)| link.index == index);
        found.map_or_else(|| format!("gone({index})"), |(name, _)| name.to_string())
    }

    const fn take_index(&mut self) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        index
    }

    fn interface(&self, name: &IfName, inner: Option<Inner>) -> Option<HostInterface> {
        let link = self.host.get(name)?;
        Some(HostInterface {
            index: link.index,
            managed: Managed::recognise(&self.scope, link.index, name, link.alias.as_deref()),
            mtu: link.mtu,
            settled: link.settled,
            position: self.positions.get(&link.index).copied(),
            attached: self.attached.contains(name),
            inner,
        })
    }

    fn look(&self, look: &Look<'_>, observed: &mut Observed) {
        let inner = match look.want {
            Want::Veth(end) => match self.look_inside(look, end) {
                Ok(inner) => inner,
                Err(obstacle) => {
                    observed.obstacles.insert(look.host.clone(), obstacle);
                    None
                }
            },
            Want::Existing if !self.host.contains_key(&look.host) => {
                let obstacle = Obstacle::InterfaceGone {
                    name: look.host.clone(),
                };
                observed.obstacles.insert(look.host.clone(), obstacle);
                None
            }
            Want::Existing | Want::Nothing => None,
        };
        let foreign_veth = observed.obstacles.contains_key(&look.host) && matches!(look.want, Want::Veth(_));
        if let Some(interface) = self.interface(&look.host, inner)
            && (interface.managed.is_some() || !foreign_veth)
        {
            observed.interfaces.insert(look.host.clone(), interface);
        }
    }

    fn look_inside(&self, look: &Look<'_>, end: &VethEnd) -> Result<Option<Inner>, Obstacle> {
        if self
            .interface(&look.host, None)
            .is_some_and(|found| found.managed.is_none())
        {
            return Err(Obstacle::HostNameTaken {
                host: look.host.clone(),
            });
        }
        let path = end.netns.path.display().to_string();
        let guests = match self.netns.get(&end.netns.path) {
            None => {
                return Err(Obstacle::NetnsGone {
                    path,
                    detail: "no such file".to_owned(),
                });
            }
            Some((id, _)) if *id != end.netns.id => {
                return Err(Obstacle::NetnsGone {
                    path,
                    detail: "another namespace is there".to_owned(),
                });
            }
            Some((_, guests)) => guests,
        };
        match guests.get(&end.name) {
            Some(guest) if guest.host.as_ref() == Some(&look.host) => {
                let mut inner = guest.inner.clone();
                if !look.policies {
                    inner.policies.clear();
                }
                Ok(Some(inner))
            }
            Some(_) => Err(Obstacle::NameTaken {
                name: end.name.clone(),
                path,
            }),
            None => Ok(None),
        }
    }

    /// The rules of a namespace after a change at the end with this host end.
    fn change_rules(&mut self, change: &InnerChange) {
        let table = self.index_of(&change.host);
        let rules = self.rules.entry(change.netns.path.clone()).or_default();
        for (number, _) in &change.remove_policies {
            rules.retain(|rule| (Some(rule.0), rule.1) != (table, *number));
        }
        let added = change.add_policies.iter();
        rules.extend(added.filter_map(|(number, _)| Some((table?, *number))));
    }

    fn sweep_one(&mut self, path: &Path) {
        let present: BTreeSet<u32> = self.host.values().map(|link| link.index).collect();
        if let Some(rules) = self.rules.get_mut(path) {
            rules.retain(|(table, _)| present.contains(table));
        }
    }

    fn create_one(&mut self, new: &NewEnd) -> Result<u32, OpError> {
        let end = &new.end;
        let taken = |name: &IfName| OpError {
            kind: FailureKind::NameTaken,
            message: format!("interface {name} exists"),
            field: Some(("mechanism.parameters[name]".to_owned(), name.to_string())),
        };
        if self.host.contains_key(&new.host) {
            return Err(taken(&new.host));
        }
        let Some((_, guests)) = self
            .netns
            .get_mut(&end.netns.path)
            .filter(|(id, _)| *id == end.netns.id)
        else {
            let message = format!("namespace {} is gone", end.netns.path.display());
            return Err(OpError {
                kind: FailureKind::NetnsGone,
                message,
                field: None,
            });
        };
        if guests.contains_key(&end.name) {
            return Err(taken(&end.name));
        }
        let inner = Inner {
            mac: end.mac,
            mtu: new.mtu,
            up: false,
            forwards: false,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            policies: BTreeSet::new(),
        };
        guests.insert(
            end.name.clone(),
            Guest {
                host: Some(new.host.clone()),
                inner,
            },
        );
        let index = self.take_index();
        let link = Link {
            index,
            alias: Some(new.mark.as_str().to_owned()),
            mtu: new.mtu,
            settled: true,
            peer: Some((end.netns.path.clone(), end.name.clone())),
        };
        self.host.insert(new.host.clone(), link);
        Ok(index)
    }

    fn configure_one(&mut self, change: &InnerChange) -> Result<(), OpError> {
        let guests = self.netns.get_mut(&change.netns.path).map(|(_, guests)| guests);
        let Some(guest) = guests.and_then(|guests| guests.get_mut(&change.name)) else {
            if change.only_removes_policies() {
                self.sweep_one(&change.netns.path);
                return Ok(());
            }
            let message = format!("interface {} is gone", change.name);
            return Err(OpError {
                kind: FailureKind::NetnsGone,
                message,
                field: None,
            });
        };
        let inner = &mut guest.inner;
        inner.mtu = change.mtu.unwrap_or(inner.mtu);
        inner.up |= change.mtu.is_some();
        inner.mac = change.mac.unwrap_or(inner.mac);
        inner.forwards |= change.forward;
        inner.policies.retain(|one| !change.remove_policies.contains(one));
        inner.policies.extend(change.add_policies.iter().cloned());
        inner
            .neighbours
            .retain(|n| !change.remove_neighbours.contains(&n.value.ip));
        inner
            .routes
            .retain(|route| !change.remove_routes.contains(&route.value));
        inner
            .addresses
            .retain(|address| !change.remove_addresses.contains(&address.value));
        inner
            .addresses
            .extend(change.add_addresses.iter().map(|value| Owned {
                value: *value,
                ours: true,
            }));
        inner.routes.extend(change.add_routes.iter().map(|value| Owned {
            value: value.clone(),
            ours: true,
        }));
        let new: BTreeSet<IpAddr> = change.add_neighbours.iter().map(|n| n.ip).collect();
        inner.neighbours.retain(|n| !new.contains(&n.value.ip));
        inner
            .neighbours
            .extend(change.add_neighbours.iter().map(|value| Owned {
                value: value.clone(),
                ours: true,
            }));
        self.change_rules(change);
        Ok(())
    }
}

fn write_inner(text: &mut String, inner: &Inner) -> fmt::Result {
    let forwards = if inner.forwards { " forwards" } else { "" };
    writeln!(
        text,
        "  mac={} mtu={} up={}{forwards}",
        inner.mac, inner.mtu, inner.up
    )?;
    let owner = |ours| if ours { "" } else { " (workload's)" };
    for Owned { value, ours } in &inner.addresses {
        writeln!(text, "  address {value}{}", owner(*ours))?;
    }
    for Owned {
        value: Route { prefix, next_hop },
        ours,
    } in &inner.routes
    {
        let via = next_hop.map_or_else(|| "on link".to_owned(), |via| format!("via {via}"));
        writeln!(text, "  route {prefix} {via}{}", owner(*ours))?;
    }
    for (number, policy) in &inner.policies {
        writeln!(text, "  policy {number} {policy}")?;
    }
    for Owned {
        value: Neighbour { ip, mac },
        ours,
    } in &inner.neighbours
    {
        writeln!(text, "  neighbour {ip} {mac}{}", owner(*ours))?;
    }
    Ok(())
}

impl Datapath for Fake {
    fn description(&self) -> Description {
        Description {
            attach_backend: "fake",
            pin_path: "none".to_owned(),
            kernel_release: "none".to_owned(),
            max_wires: self.max_wires,
        }
    }

    fn scope(&self) -> &NodeScope {
        &self.scope
    }

    fn observe(&mut self, scope: &Scope<'_>) -> Result<Observed, ObserveError> {
        let mut observed = Observed {
            generation: self.generation,
            ..Observed::default()
        };
        if scope.everything {
            for name in self.host.keys() {
                let found = self.interface(name, None);
                let ours = |i: &HostInterface| i.managed.is_some() || i.attached || i.position.is_some();
                observed
                    .interfaces
                    .extend(found.filter(ours).map(|interface| (name.clone(), interface)));
            }
            let dead = self.attached.iter().filter(|name| !self.host.contains_key(*name));
            observed.stray_attachments.extend(dead.cloned());
            let stray = self
                .rules
                .iter()
                .filter(|(_, rules)| rules.iter().any(|(table, _)| self.is_stray(*table)));
            for (path, _) in stray {
                let id = self.netns.get(path).map(|(id, _)| *id);
                observed.stray_policies.extend(id.map(|id| NetnsRef {
                    path: path.clone(),
                    id,
                }));
            }
        }
        for look in &scope.looks {
            self.look(look, &mut observed);
            if !self.host.contains_key(&look.host) && self.attached.contains(&look.host) {
                observed.stray_attachments.insert(look.host.clone());
            }
        }
        let known: BTreeSet<u32> = observed
            .interfaces
            .values()
            .map(|interface| interface.index)
            .collect();
        let asked = |index: &u32| scope.everything || scope.indexes.contains(index);
        let stray = self
            .positions
            .iter()
            .filter(|(index, _)| asked(index) && !known.contains(index));
        observed
            .stray_positions
            .extend(stray.map(|(index, position)| (*index, *position)));
        let named: BTreeSet<u32> = observed
            .positions()
            .flat_map(|(_, position)| split_numbers(&position))
            .collect();
        let seen = |number: &u32| scope.everything || named.contains(number);
        let splits = self.splits.iter().filter(|(number, _)| seen(number));
        observed.splits = splits.map(|(number, split)| (*number, *split)).collect();
        Ok(observed)
    }

    fn survey(&mut self) -> Result<Option<Survey>, ObserveError> {
        let everything = self.observe(&Scope {
            everything: true,
            ..Scope::default()
        })?;
        let interfaces = everything.interfaces.iter();
        Ok(Some(Survey {
            interfaces: interfaces
                .map(|(name, found)| (name.clone(), found.index))
                .collect(),
            positions: everything.positions().collect(),
            splits: everything.splits,
            attachments: self.attached.iter().cloned().collect(),
            incomplete: self.stray_rules() > 0,
        }))
    }

    fn create(&mut self, ends: &[&NewEnd]) -> Results<u32> {
        ends.iter().map(|end| self.create_one(end)).collect()
    }

    fn settle(&mut self, ends: &[&Settle]) -> Results<()> {
        let mut one = |end: &Settle| {
            let link = self
                .host
                .get_mut(end.link.name())
                .ok_or_else(|| OpError::kernel("gone".to_owned()))?;
            (link.mtu, link.settled) = (end.mtu, true);
            Ok(())
        };
        ends.iter().map(|end| one(end)).collect()
    }

    fn configure(&mut self, changes: &[&InnerChange]) -> Results<()> {
        changes.iter().map(|change| self.configure_one(change)).collect()
    }

    fn zero_counters(&mut self, slots: &[u32]) -> Result<(), OpError> {
        slots
            .iter()
            .for_each(|slot| _ = self.counters.insert(*slot, WireCounters::default()));
        Ok(())
    }

    fn write_positions(&mut self, entries: &[(u32, Position)]) -> Results<()> {
        self.positions.extend(entries.iter().copied());
        vec![Ok(()); entries.len()]
    }

    fn delete_positions(&mut self, indexes: &[u32]) -> Results<()> {
        self.positions.retain(|index, _| !indexes.contains(index));
        vec![Ok(()); indexes.len()]
    }

    fn split(&self, number: u32) -> Result<Option<Split>, ObserveError> {
        Ok(self.splits.get(&number).copied())
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn write_splits(&mut self, splits: &[(u32, Split)]) -> Results<()> {
        self.splits.extend(splits.iter().copied());
        vec![Ok(()); splits.len()]
    }

    fn delete_splits(&mut self, numbers: &[u32]) -> Results<()> {
        self.splits.retain(|number, _| !numbers.contains(number));
        vec![Ok(()); numbers.len()]
    }

    fn count_flows(
        &self,
        counts: &dyn Fn(&FlowKey, &FlowPin) -> bool,
    ) -> Result<BTreeMap<(u64, u32), u32>, ObserveError> {
        let mut flows = BTreeMap::new();
        for (key, pin) in self.flows.iter().filter(|(key, pin)| counts(key, pin)) {
            *flows.entry((key.scope, pin.branch)).or_default() += 1;
        }
        Ok(flows)
    }

    fn watch(&mut self, changes: Vec<WatchChange>) {
        for WatchChange { wire, targets, .. } in changes {
            if targets.is_empty() {
                self.watched.remove(&wire);
            } else {
                self.watched.insert(wire, targets);
            }
        }
    }

    fn set_generation(&mut self, generation: Generation) -> Result<(), OpError> {
        self.generation = generation;
        Ok(())
    }

    fn attach(&mut self, interfaces: &[(&IfName, u32)]) -> Results<()> {
        self.attached
            .extend(interfaces.iter().map(|(name, _)| (*name).clone()));
        vec![Ok(()); interfaces.len()]
    }

    fn promote(&mut self, interfaces: &[(&IfName, u32)]) -> Results<bool> {
        let fresh = interfaces.iter().map(|(name, _)| (*name).clone());
        self.promoted.extend(fresh);
        vec![Ok(true); interfaces.len()]
    }

    fn detach(&mut self, interfaces: &[&IfName]) -> Results<()> {
        self.attached.retain(|name| !interfaces.contains(&name));
        vec![Ok(()); interfaces.len()]
    }

    fn delete(&mut self, links: &[&Managed]) -> Results<()> {
        for link in links {
            self.remove_interface(link.name());
            self.attached.remove(link.name());
            self.promoted.remove(link.name());
        }
        vec![Ok(()); links.len()]
    }

    fn sweep(&mut self, namespaces: &[&NetnsRef]) -> Results<()> {
        namespaces.iter().for_each(|netns| self.sweep_one(&netns.path));
        vec![Ok(()); namespaces.len()]
    }

    fn counters(&self, slots: &[u32]) -> Result<Vec<WireCounters>, ObserveError> {
        Ok(slots
            .iter()
            .map(|slot| self.counters.get(slot).copied().unwrap_or_default())
            .collect())
    }

    fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError> {
        Ok(Reason::ALL.iter().map(|reason| (*reason, 0)).collect())
    }
}
