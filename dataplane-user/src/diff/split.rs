//! What an end holds from which ways part, or come together.
//!
//! A branch goes by an id: a hash of the ends that its circuit has, and its place in the wire's splits. Both stay as long
//! as the circuit does, whatever else changes on the wire, so flows keep it. Circuits with the same ends are one branch.

use std::net::IpAddr;

use dataplane_common::abi::{
    FlowPin, MAX_BRANCHES, MAX_RULES, Position, Shares, Split, SplitBranch, SplitFlags, SplitRule,
    address_words, mapped_words,
};
use ipnet::IpNet;

use super::{Laid, hop, target};
use crate::{
    circuit::Way,
    desired::{IfName, Side, Traffic},
    observed::{HostInterface, Observed},
    op::{Lead, Learn, NewSplit, NewWay, SlotPlan},
    ownership,
};

/// For how long flows that are seen for the first time count as older than a split that comes to be: longer than the
/// pauses of what is alive.
pub const LEARN_NS: u64 = 5_000_000_000;

const PLACE_BITS: u32 = 0b111;

/// The ids of a wire's branches, by circuit; 0 where there is no place left.
pub(super) struct Ids(Vec<u32>);

impl Ids {
    /// Branches that are known keep their places; others get free ones.
    pub(super) fn new(laid: &Laid<'_>, found: &[Option<&HostInterface>], observed: &Observed) -> Self {
        let positions = found.iter().flatten().filter_map(|interface| interface.position);
        let splits = positions.filter_map(|position| Some(observed.split_of(&position)?.1));
        let known: Vec<u32> = splits
            .flat_map(|split| split.branches.map(|branch| branch.id))
            .collect();
        let hashes: Vec<u32> = laid
            .layout
            .chains
            .iter()
            .map(|chain| chain_hash(laid, chain))
            .collect();
        let mut taken = [None; MAX_BRANCHES];
        for id in known.iter().filter(|id| hashes.contains(&(**id & !PLACE_BITS))) {
            taken[SplitBranch::index_of(*id)] = Some(id & !PLACE_BITS);
        }
        let was_used = |place: usize| {
            known
                .iter()
                .any(|id| *id != 0 && SplitBranch::index_of(*id) == place)
        };
        let mut id = |hash: u32| {
            let free = |place: &usize| taken.get(*place).is_some_and(Option::is_none);
            let own = taken.iter().position(|other| *other == Some(hash));
            let place = own
                .or_else(|| (0..MAX_BRANCHES).find(|place| free(place) && !was_used(*place)))
                .or_else(|| (0..MAX_BRANCHES).find(free));
            let Some(place) = place else { return 0 };
            taken[place] = Some(hash);
            hash | u32::try_from(place).unwrap_or(0)
        };
        Self(hashes.into_iter().map(&mut id).collect())
    }

    fn of(&self, circuit: usize) -> u32 {
        self.0.get(circuit).copied().unwrap_or(0)
    }
}

/// Names a circuit by its ends; the bits of the place are 0, and never are all.
fn chain_hash(laid: &Laid<'_>, chain: &[usize]) -> u32 {
    let hosts = chain.iter().filter_map(|end| laid.hosts.get(*end));
    let names: Vec<&[u8]> = hosts.map(|host| host.as_str().as_bytes()).collect();
    let [a, b, c, d, ..] = ownership::hash(&names).to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]) | (PLACE_BITS + 1)) & !PLACE_BITS
}

/// The id of a wire's circuit without its place, as the kernel's splits have it.
#[must_use]
pub fn branch_hash(laid: &Laid<'_>, circuit: usize) -> Option<u32> {
    Some(chain_hash(laid, laid.layout.chains.get(circuit)?))
}

/// Whether a branch's id, less its place, is this.
#[must_use]
pub const fn is_branch(id: u32, hash: u32) -> bool {
    id & !PLACE_BITS == hash
}

/// What is to be in the kernel at one end.
pub(super) struct End<'a> {
    pub(super) laid: &'a Laid<'a>,
    pub(super) ids: &'a Ids,
    pub(super) number: usize,
    /// The entry that is there and stays until the new one counts.
    pub(super) position: Option<Position>,
    pub(super) observed: &'a Observed,
}

impl End<'_> {
    /// Where the end leads whose flows go these ways.
    pub(super) fn lead(&self, ways: &[Way]) -> Option<Lead> {
        let placed = ways.iter().filter(|way| self.ids.of(way.circuit) != 0);
        let mut passing: Vec<Way> = Vec::with_capacity(ways.len());
        for way in placed {
            let known = |other: &Way| self.ids.of(other.circuit) == self.ids.of(way.circuit);
            if !passing.iter().any(known) {
                passing.push(*way);
            }
        }
        if passing.is_empty() {
            return Some(Lead::To(target(self.laid, ways.first()?.to)?));
        }
        let old = self
            .position
            .and_then(|position| self.observed.split_of(&position));
        let old = old.map(|(_, split)| split);
        let flags = self.flags(&passing);
        let counts = flags.bits() & SplitFlags::DECIDES.bits() != 0;
        let before = Before::new(self, &passing, old)?;
        let mut new_ways = Vec::with_capacity(passing.len());
        for way in &passing {
            let id = self.ids.of(way.circuit);
            let slot = old.and_then(|old| Some(old.branch(id)?.slot));
            new_ways.push(NewWay {
                id,
                target: target(self.laid, way.to)?,
                drains: self.drains(id),
                before: before.of(id),
                slot: match slot.filter(|slot| *slot != SplitBranch::NO_SLOT) {
                    _ if !counts => SlotPlan::None,
                    Some(slot) => SlotPlan::Keep(slot),
                    None => SlotPlan::New,
                },
            });
        }
        Some(Lead::Split(Box::new(NewSplit {
            scope: scope(self.laid),
            flags,
            rules: self.rules(&passing),
            otherwise: self.otherwise(&passing),
            first: self.first(&passing),
            learn: before.learn,
            ways: new_ways,
        })))
    }

    fn flags(&self, passing: &[Way]) -> SplitFlags {
        let facing = self.laid.layout.ends.get(self.number);
        if facing.is_some_and(|facing| facing.side == Side::Endpoint) {
            return SplitFlags::FROM_FAR;
        }
        let in_use = self.laid.wire.branches.len() + self.laid.wire.draining.len();
        let passes = |circuit: usize| {
            let id = self.ids.of(circuit);
            id == 0 || passing.iter().any(|way| self.ids.of(way.circuit) == id)
        };
        if (0..in_use).all(passes) {
            SplitFlags::DECIDES
        } else {
            SplitFlags::default()
        }
    }

    /// Whether it only keeps the flows that it has.
    fn drains(&self, id: u32) -> bool {
        let branches = self.laid.wire.branches.len();
        let draining = branches..branches + self.laid.wire.draining.len();
        let is = |mut circuits: std::ops::Range<usize>| circuits.any(|circuit| self.ids.of(circuit) == id);
        is(draining) && !is(0..branches)
    }

    /// Each kind of traffic that a branch names, in order, with the shares of all branches that name the same.
    fn rules(&self, passing: &[Way]) -> Vec<SplitRule> {
        let branches = &self.laid.wire.branches;
        let mut rules = Vec::new();
        for (number, branch) in branches.iter().enumerate() {
            let again = branches
                .iter()
                .take(number)
                .any(|earlier| earlier.traffic == branch.traffic);
            let shares = self.shares(&branch.traffic, passing);
            if again || shares == Shares::default() {
                continue;
            }
            rules.extend(branch.traffic.iter().map(|traffic| rule(traffic, shares)));
        }
        rules.truncate(MAX_RULES);
        rules
    }

    /// The shares of what no branch names: of those that name nothing, or of the first.
    fn otherwise(&self, passing: &[Way]) -> Shares {
        let mut shares = self.shares(&[], passing);
        if shares == Shares::default() {
            shares[SplitBranch::index_of(self.first(passing))] = 1;
        }
        shares
    }

    /// The id of the first branch that names nothing, or of the first of all.
    fn first(&self, passing: &[Way]) -> u32 {
        let branches = &self.laid.wire.branches;
        let names_nothing = |way: &&Way| {
            branches
                .get(way.circuit)
                .is_some_and(|branch| branch.traffic.is_empty())
        };
        let first = passing.iter().find(names_nothing).or_else(|| passing.first());
        first.map_or(0, |way| self.ids.of(way.circuit))
    }

    /// The shares of the branches that name exactly this traffic and pass here; equal ones, if none has a weight.
    fn shares(&self, traffic: &[Traffic], passing: &[Way]) -> Shares {
        let mut weights: [Option<u64>; MAX_BRANCHES] = [None; MAX_BRANCHES];
        for (number, branch) in self.laid.wire.branches.iter().enumerate() {
            let id = self.ids.of(number);
            let passes = passing.iter().any(|way| self.ids.of(way.circuit) == id);
            if passes && branch.traffic == traffic {
                *weights[SplitBranch::index_of(id)].get_or_insert(0) += u64::from(branch.weight);
            }
        }
        let highest = weights.iter().flatten().copied().max().unwrap_or(0);
        let limit = u64::from(u16::MAX);
        let share = |weight: u64| match weight {
            _ if highest == 0 => 1,
            0 => 0,
            _ if highest <= limit => weight,
            _ => (weight * limit / highest).max(1),
        };
        weights.map(|weight| weight.map_or(0, |weight| u16::try_from(share(weight)).unwrap_or(u16::MAX)))
    }
}

/// Which branches leave which others their flows, and until when that is learnt.
struct Before {
    pairs: Vec<(u32, u32)>,
    learn: Learn,
}

impl Before {
    fn new(end: &End<'_>, passing: &[Way], old: Option<&Split>) -> Option<Self> {
        let passes = |id: u32| passing.iter().any(|way| end.ids.of(way.circuit) == id);
        let mut pairs = Vec::new();
        let branches = end.laid.wire.branches.len();
        let mut news = false;
        for (number, draining) in end.laid.wire.draining.iter().enumerate() {
            let (from, to) = (end.ids.of(branches + number), end.ids.of(draining.branch));
            if end.drains(from) && passes(from) && passes(to) {
                pairs.push((to, from));
                let drained = |branch: &SplitBranch| branch.flags & SplitBranch::DRAINS != 0;
                news |= !old.and_then(|old| old.branch(from)).is_some_and(drained);
            }
        }
        let carried = old.into_iter().flat_map(|old| {
            let branches = old.branches.iter().filter(|branch| branch.before != 0);
            branches.map(|branch| {
                let before = SplitBranch::index_of(branch.before.wrapping_sub(1));
                (branch.id, old.branches.get(before).map_or(0, |before| before.id))
            })
        });
        pairs.extend(carried.filter(|(to, from)| passes(*to) && passes(*from)));
        if let (None, Some(position)) = (old, end.position) {
            let only = end.plain(&position, passing)?;
            if let Some(only) = only {
                news = true;
                let others = passing.iter().map(|way| end.ids.of(way.circuit));
                pairs.extend(others.filter(|id| *id != only).map(|id| (id, only)));
            }
        }
        let learn = match old {
            _ if news && !pairs.is_empty() => Learn::Begin,
            Some(old) => Learn::Keep(old.learn_until_ns),
            None => Learn::Keep(0),
        };
        Some(Self { pairs, learn })
    }

    fn of(&self, id: u32) -> u32 {
        let pair = self.pairs.iter().find(|(to, _)| *to == id);
        pair.map_or(0, |(_, from)| *from)
    }
}

impl End<'_> {
    /// The id of the branch that all flows take now, by an entry that is no split.
    #[expect(
        clippy::option_option,
        reason = "the outer one says that the layout is not whole"
    )]
    fn plain(&self, position: &Position, passing: &[Way]) -> Option<Option<u32>> {
        let now = position.hop_at(self.observed.generation);
        for way in passing {
            let to = target(self.laid, way.to)?;
            let there = self.observed.interfaces.get(&to.host);
            if there.is_some_and(|there| hop(to.kind, there.index) == now) {
                return Some(Some(self.ids.of(way.circuit)));
            }
        }
        Some(None)
    }
}

/// Tells the flows of a wire from those of others.
#[must_use]
pub fn scope(laid: &Laid<'_>) -> u64 {
    ownership::hash(&[laid.wire.id.0.as_bytes()])
}

/// The rule for this traffic.
fn rule(traffic: &Traffic, shares: Shares) -> SplitRule {
    let all_ones = |set: bool| if set { u8::MAX } else { 0 };
    let (first_port, last_port) = traffic.ports.unwrap_or((0, u16::MAX));
    let (network, mask, family) = traffic.prefix.map_or(([0; 2], [0; 2], 0), prefix);
    SplitRule {
        network,
        mask,
        first_port,
        last_port,
        protocol: traffic.protocol.unwrap_or(0),
        protocol_mask: all_ones(traffic.protocol.is_some()),
        family,
        family_mask: all_ones(traffic.prefix.is_some()),
        flags: SplitRule::COUNTS
            | if traffic.ports.is_some() {
                SplitRule::PORTS
            } else {
                0
            },
        shares,
    }
}

/// Network, mask and family.
fn prefix(prefix: IpNet) -> ([u64; 2], [u64; 2], u8) {
    let (words, length, family) = match prefix.network() {
        IpAddr::V4(v4) => (mapped_words(v4.octets()), u32::from(prefix.prefix_len()) + 96, 4),
        IpAddr::V6(v6) => (address_words(&v6.octets()), u32::from(prefix.prefix_len()), 6),
    };
    let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    let mask = address_words(&bits.to_be_bytes());
    ([words[0] & mask[0], words[1] & mask[1]], mask, family)
}

impl NewSplit {
    /// The split as the kernel has it, with interfaces by index; `None` if one of them is not there.
    pub fn build(
        &self,
        index: impl Fn(&IfName) -> Option<u32>,
        slot: impl Fn(&NewWay) -> Option<u32>,
        learn_until_ns: u64,
    ) -> Option<Split> {
        let mut split = Split {
            scope: self.scope,
            learn_until_ns,
            otherwise: self.otherwise,
            flags: self.flags.bits(),
            first: place(self.first),
            ..Split::default()
        };
        for (into, rule) in split.rules.iter_mut().zip(&self.rules) {
            *into = *rule;
        }
        for way in &self.ways {
            split.branches[SplitBranch::index_of(way.id)] = SplitBranch {
                hop: hop(way.target.kind, index(&way.target.host)?),
                id: way.id,
                flags: if way.drains { SplitBranch::DRAINS } else { 0 },
                slot: slot(way)?,
                before: if way.before == 0 { 0 } else { place(way.before) + 1 },
            };
        }
        Some(split)
    }

    /// Whether this split says the same already.
    #[must_use]
    pub fn is(&self, old: &Split, index: impl Fn(&IfName) -> Option<u32>) -> bool {
        let Learn::Keep(until) = self.learn else {
            return false;
        };
        let slot = |way: &NewWay| match way.slot {
            SlotPlan::None => Some(SplitBranch::NO_SLOT),
            SlotPlan::Keep(slot) => Some(slot),
            SlotPlan::New => None,
        };
        self.build(index, slot, until).is_some_and(|split| split == *old)
    }
}

fn place(id: u32) -> u32 {
    id & PLACE_BITS
}

/// Whether a flow in the table still holds its branch back from going: it was seen in the last `idle_ns`, and neither
/// both ends have ended it nor one has reset it.
#[must_use]
pub const fn is_open(pin: &FlowPin, now_ns: u64, idle_ns: u64) -> bool {
    !pin.is_closed() && now_ns.saturating_sub(pin.seen_ns) < idle_ns
}
