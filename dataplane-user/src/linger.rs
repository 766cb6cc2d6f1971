//! Ends on their way out: an end that a wire of the plan does not want any more goes on leading where it led for a
//! while, so that packets that are under way through it are not lost.
//!
//! Nothing here is needed across a restart: an end that is found unwanted then begins to linger anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    circuit::Facing,
    desired::{End, IfName, NetnsId, Side, VethEnd, WireId},
    diff::{Laid, Leaving, is_broken, withdrawal},
    observed::{HostInterface, Observed},
    ownership::{NodeScope, host_name},
};

/// How long an end lingers: longer than any queue on the way, shorter than anybody would wait for a name.
pub const LINGER: Duration = Duration::from_millis(250);

/// Where a workload's end is: its namespace, and its name there.
type Place = (NetnsId, IfName);

/// The ends that linger, by their name in the agent's namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lingering {
    ends: BTreeMap<IfName, Unwanted>,
}

/// An end that was seen unwanted.
#[derive(Clone, Debug)]
struct Unwanted {
    was: Before,
    index: u32,
    since: Instant,
}

/// An end as a wire had it.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) wire: WireId,
    side: Side,
    /// The workload's end. Unknown when only the mark says whose it is; `None` for an existing interface.
    end: Option<VethEnd>,
}

/// An end whose time has come.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) host: IfName,
    pub(crate) index: u32,
    pub(crate) was: Before,
}

impl Before {
    /// The ends of a wire, by name.
    pub(crate) fn of<'a>(laid: &'a Laid<'_>) -> impl Iterator<Item = (IfName, Self)> + 'a {
        let before = |(facing, host): (&Facing<'_>, &IfName)| {
            let before = Self {
                wire: laid.wire.id.clone(),
                side: facing.side,
                end: match facing.end {
                    End::Veth(end) => Some(end.clone()),
                    End::Interface(_) => None,
                },
            };
            (host.clone(), before)
        };
        laid.ends().map(before)
    }

    fn place(&self) -> Option<Place> {
        self.end.as_ref().map(|end| (end.netns.id, end.name.clone()))
    }
}

fn place_of(end: &End) -> Option<Place> {
    match end {
        End::Veth(end) => Some((end.netns.id, end.name.clone())),
        End::Interface(_) => None,
    }
}

/// What one round is about.
pub(crate) struct Round<'a> {
    pub(crate) now: Instant,
    pub(crate) scope: &'a NodeScope,
    /// The wires as they shall be, but those that cannot be made.
    pub(crate) wires: &'a [Laid<'a>],
    /// Ends as wires had them before, by name.
    pub(crate) before: &'a BTreeMap<IfName, Before>,
    pub(crate) observed: &'a Observed,
}

impl Lingering {
    /// When the next end is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.ends.values().map(|end| end.since + LINGER).min()
    }

    /// Whether the interface with this index lingers.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.ends.values().any(|end| end.index == index)
    }

    /// Takes the ends that are due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let all = std::mem::take(&mut self.ends).into_iter();
        let (due, later): (Vec<_>, Vec<_>) = all.partition(|(_, end)| end.since + LINGER <= now);
        self.ends.extend(later);
        let due = due.into_iter().map(|(host, end)| Due {
            host,
            index: end.index,
            was: end.was,
        });
        due.collect()
    }

    /// The lingering ends of these wires: names, wires and indexes.
    pub(crate) fn of(&self, wires: impl Fn(&WireId) -> bool) -> Vec<(IfName, WireId, u32)> {
        let theirs = self.ends.iter().filter(|(_, end)| wires(&end.was.wire));
        theirs
            .map(|(host, end)| (host.clone(), end.was.wire.clone(), end.index))
            .collect()
    }

    /// Wires of whose lingering ends one has the place of an end that `wires` want.
    pub(crate) fn in_the_way(&self, scope: &NodeScope, wires: &[Laid<'_>]) -> BTreeSet<WireId> {
        if self.ends.is_empty() {
            return BTreeSet::new();
        }
        let wanted = wires.iter().flat_map(|laid| &laid.layout.ends);
        let places: BTreeSet<Place> = wanted.filter_map(|facing| place_of(facing.end)).collect();
        let has = |(host, end): &(&IfName, &Unwanted)| end.was.has_any(scope, host, &places);
        self.ends
            .iter()
            .filter(has)
            .map(|(_, end)| end.was.wire.clone())
            .collect()
    }

    /// Every end of ours that was looked at and no wire wants, where it is known whose it is.
    pub(crate) fn unwanted(&self, round: &Round<'_>) -> UnwantedEnds {
        let wanted: BTreeSet<&IfName> = round.wires.iter().flat_map(|wire| &wire.hosts).collect();
        let found = round.observed.interfaces.iter();
        let unwanted = found.filter(|(host, _)| !wanted.contains(*host));
        let known = unwanted
            .filter_map(|(host, interface)| Some((host.clone(), self.identify(round, host, interface)?)));
        UnwantedEnds(known.collect())
    }

    /// Sorts what is not wanted into what stays a while, what must make way, and the rest, and remembers it. Wires that
    /// `failed` are not made as planned: what is left of them goes at once. All interfaces of the wires that it is
    /// `about` were looked at.
    pub(crate) fn sort(
        &mut self,
        round: &Round<'_>,
        failed: impl Fn(&WireId) -> bool,
        about: impl Fn(&WireId) -> bool,
    ) -> Leaving {
        let UnwantedEnds(unwanted) = self.unwanted(round);
        let first = needed(round, &unwanted);
        let planned: BTreeSet<&WireId> = round.wires.iter().map(|laid| &laid.wire.id).collect();
        let stays = |(host, end): &(&IfName, &Unwanted)| {
            !first.contains(*host)
                && end.since + LINGER > round.now
                && planned.contains(&end.was.wire)
                && !failed(&end.was.wire)
        };
        let staying = unwanted.iter().filter(stays);
        let mut staying: BTreeMap<_, _> = staying.map(|(host, end)| (host.clone(), end.clone())).collect();
        keep_only_leading(round, &mut staying);
        let going = unwanted.iter().filter(|(host, _)| !staying.contains_key(*host));
        let withdrawals = going.filter_map(|(host, end)| {
            let change = withdrawal(host, end.was.end.as_ref()?)?;
            Some((host.clone(), change))
        });
        let withdrawals = withdrawals.collect();
        let interfaces = &round.observed.interfaces;
        self.ends
            .retain(|host, end| !interfaces.contains_key(host) && !about(&end.was.wire));
        let stays = staying.keys().cloned().collect();
        self.ends.append(&mut staying);
        Leaving {
            stays,
            first,
            withdrawals,
        }
    }

    /// Whose end an unwanted interface is, and since when nobody wants it.
    fn identify(&self, round: &Round<'_>, host: &IfName, interface: &HostInterface) -> Option<Unwanted> {
        let known = self.ends.get(host).filter(|end| end.index == interface.index);
        if let Some(known) = known {
            return Some(known.clone());
        }
        let was = match (round.before.get(host), &interface.managed) {
            (Some(before), _) => before.clone(),
            (None, Some(managed)) => {
                let (wire, side) = managed.mark().names(round.scope)?;
                Before {
                    wire,
                    side,
                    end: None,
                }
            }
            (None, None) => return None,
        };
        Some(Unwanted {
            was,
            index: interface.index,
            since: round.now,
        })
    }
}

impl Before {
    /// Whether its workload's end is at one of `places`. Where only the mark tells whose it is, its name does.
    fn has_any(&self, scope: &NodeScope, host: &IfName, places: &BTreeSet<Place>) -> bool {
        match self.place() {
            Some(place) => places.contains(&place),
            None => places
                .iter()
                .any(|(netns, name)| host_name(scope, &self.wire, self.side, *netns, name) == *host),
        }
    }
}

/// The ends of ours that nobody wants, by name.
#[derive(Debug)]
pub(crate) struct UnwantedEnds(BTreeMap<IfName, Unwanted>);

impl UnwantedEnds {
    /// Whether what is at the place of `end` is one of them, so that it can make way.
    pub(crate) fn hold(&self, scope: &NodeScope, end: &End) -> bool {
        let place: BTreeSet<Place> = place_of(end).into_iter().collect();
        self.0
            .iter()
            .any(|(host, end)| end.was.has_any(scope, host, &place))
    }
}

/// The unwanted ends that something new needs the place of: its name in a workload's namespace; or the namespace, where
/// two ends of one wire would have the same addresses and routes.
fn needed(round: &Round<'_>, unwanted: &BTreeMap<IfName, Unwanted>) -> BTreeSet<IfName> {
    if unwanted.is_empty() {
        return BTreeSet::new();
    }
    let (mut homes, mut places) = (BTreeSet::new(), BTreeSet::new());
    for laid in round.wires {
        let made = laid
            .ends()
            .filter(|(_, host)| !round.observed.interfaces.contains_key(*host));
        for place in made.filter_map(|(facing, _)| place_of(facing.end)) {
            homes.insert((&laid.wire.id, place.0));
            places.insert(place);
        }
    }
    let at_home = |end: &Unwanted| {
        let place = end.was.place();
        place.is_some_and(|place| homes.contains(&(&end.was.wire, place.0)))
    };
    let needed = unwanted
        .iter()
        .filter(|(host, end)| at_home(end) || end.was.has_any(round.scope, host, &places));
    needed.map(|(host, _)| host.clone()).collect()
}

/// Of what stays, keeps what leads to an interface that stays as well or is wanted: the index of any other may be
/// given to another wire.
fn keep_only_leading(round: &Round<'_>, staying: &mut BTreeMap<IfName, Unwanted>) {
    if staying.is_empty() {
        return;
    }
    let wanted: BTreeSet<&IfName> = round.wires.iter().flat_map(|wire| &wire.hosts).collect();
    let broken: BTreeSet<&IfName> = round
        .wires
        .iter()
        .flat_map(Laid::ends)
        .filter(|(facing, host)| is_broken(facing.end, round.observed.interfaces.get(*host)))
        .map(|(_, host)| host)
        .collect();
    let interfaces = &round.observed.interfaces;
    loop {
        let remain =
            |host: &&IfName| staying.contains_key(*host) || (wanted.contains(host) && !broken.contains(host));
        let alive: BTreeSet<u32> = interfaces
            .keys()
            .filter(remain)
            .filter_map(|host| Some(interfaces.get(host)?.index))
            .collect();
        let before = staying.len();
        staying.retain(|host, _| {
            let position = interfaces.get(host).and_then(|interface| interface.position);
            position.is_some_and(|position| {
                let leads_to = round.observed.leads_to(&position);
                !leads_to.is_empty() && leads_to.iter().all(|index| alive.contains(index))
            })
        });
        if staying.len() == before {
            return;
        }
    }
}
