//! The choice of a branch.

use super::{FIN, Kind, RST, Seen};
use crate::{
    abi::{
        AddressWords, FlowKey, FlowPin, MAX_BRANCHES, MAX_RULES, Shares, Split, SplitBranch, SplitFlags,
        SplitRule,
    },
    verdict::Reason,
};

const TCP: u8 = 6;

/// The table of flows.
pub trait FlowTable {
    /// A flow that is there.
    type Entry: FlowEntry;

    /// Looks a flow up.
    fn find(&self, key: &FlowKey) -> Option<Self::Entry>;

    /// Notes a flow; whether there was room.
    fn keep(&self, key: &FlowKey, pin: &FlowPin) -> bool;
}

/// A flow that is there. Others may read and write it meanwhile; each of its two words is whole.
pub trait FlowEntry {
    /// Its value.
    fn get(&self) -> FlowPin;

    /// Writes the word of branch and state.
    fn set_branch(&self, branch: u32, state: u32);

    /// Writes the time.
    fn set_seen(&self, seen_ns: u64);
}

/// The branch that a packet takes, and what to count it under. `now` is `CLOCK_MONOTONIC` in nanoseconds; a clock that
/// ticks every few milliseconds will do.
#[inline(always)]
pub fn choose<'a>(
    split: &'a Split,
    seen: &Seen,
    flows: &impl FlowTable,
    now: u64,
) -> (&'a SplitBranch, Reason) {
    if matches!(seen.kind, Kind::Other) {
        return (at(split, split.first), Reason::Forwarded);
    }
    let key = seen.key(split.scope);
    let state = state(seen);
    let entry = flows.find(&key);
    let pin = entry.as_ref().map_or(FlowPin::NONE, FlowEntry::get);
    let pinned = split.branch(pin.branch);
    let (branch, mut reason) = match (entry, pinned) {
        (Some(entry), Some(branch)) if !(seen.begins() && is_over(branch, &pin)) => {
            follow(&entry, &pin, state, now);
            (branch, Reason::Forwarded)
        }
        (entry, pinned) => {
            let branch = at(split, select(split, seen, &key, now));
            let decides = pinned.is_some() || split.has(SplitFlags::DECIDES);
            let pin = pin_to(branch, state, now);
            (branch, note(seen, entry, &key, &pin, decides, flows))
        }
    };
    if matches!(seen.kind, Kind::FirstFragment)
        && !flows.keep(&seen.fragment_key(split.scope), &pin_to(branch, 0, now))
    {
        reason = Reason::Unpinned;
    }
    (branch, reason)
}

/// The packet goes where its flow goes: what it says of the flow is noted, seldom.
#[inline(always)]
fn follow(entry: &impl FlowEntry, pin: &FlowPin, state: u32, now: u64) {
    if now.wrapping_sub(pin.seen_ns) >= FlowPin::SEEN_EVERY_NS {
        entry.set_seen(now);
    }
    if pin.state | state != pin.state {
        entry.set_branch(pin.branch, pin.state | state);
    }
}

/// The packet's branch was chosen: its flow is to go there from here on.
#[inline(always)]
fn note<T: FlowTable>(
    seen: &Seen,
    entry: Option<T::Entry>,
    key: &FlowKey,
    pin: &FlowPin,
    decides: bool,
    flows: &T,
) -> Reason {
    if seen.is_part() {
        return Reason::FragmentAlone;
    }
    match entry {
        _ if matches!(seen.kind, Kind::Error) => Reason::Forwarded,
        Some(entry) => {
            if decides {
                entry.set_branch(pin.branch, pin.state);
                entry.set_seen(pin.seen_ns);
            }
            Reason::Forwarded
        }
        None if flows.keep(key, pin) => Reason::Forwarded,
        None => Reason::Unpinned,
    }
}

/// Whether a SYN on a pinned flow begins another one: the old one was closed, or its branch takes no new ones.
#[inline(always)]
const fn is_over(branch: &SplitBranch, pin: &FlowPin) -> bool {
    pin.is_closed() || branch.flags & SplitBranch::DRAINS != 0
}

#[inline(always)]
const fn pin_to(branch: &SplitBranch, state: u32, now: u64) -> FlowPin {
    FlowPin {
        branch: branch.id,
        state,
        seen_ns: now,
    }
}

#[inline(always)]
const fn at(split: &Split, index: u32) -> &SplitBranch {
    &split.branches[SplitBranch::index_of(index)]
}

/// What a packet says about the end of its connection.
#[inline(always)]
fn state(seen: &Seen) -> u32 {
    let fin = if seen.tcp_flags & FIN == 0 {
        0
    } else if seen.from_low() {
        FlowPin::FIN_LOW
    } else {
        FlowPin::FIN_HIGH
    };
    let reset = if seen.tcp_flags & RST == 0 {
        0
    } else {
        FlowPin::RESET
    };
    fin | reset
}

/// The branch of a flow that is in no table: by the first rule that holds, then by shares and the hash of the flow. Where
/// the branch takes over from another one, flows that are not new go there: while it is being learnt which there are,
/// whatever does not begin a TCP connection; later, of a branch that drains, what belongs to a TCP connection that did
/// not begin here.
///
/// A function of its own in the kernel program too: few packets come here, and it needs much of the stack.
#[inline(never)]
fn select(split: &Split, seen: &Seen, key: &FlowKey, now: u64) -> u32 {
    let index = pick(shares(split, seen), hash(key));
    let before = at(split, index).before;
    if before == 0 || seen.begins() {
        return index;
    }
    let drains = at(split, before - 1).flags & SplitBranch::DRAINS != 0;
    let is_old = now < split.learn_until_ns || (drains && seen.protocol == TCP);
    if is_old { before - 1 } else { index }
}

/// The shares of the branches in a new flow.
#[inline(always)]
fn shares<'a>(split: &'a Split, seen: &Seen) -> &'a Shares {
    let (far, port) = if split.has(SplitFlags::FROM_FAR) {
        (seen.source, seen.source_port)
    } else {
        (seen.destination, seen.destination_port)
    };
    let port = without_bound(u64::from(port));
    let mut index = 0;
    while index < MAX_RULES {
        let rule = &split.rules[index];
        if misses(rule, seen, far, port) == 0 {
            return &rule.shares;
        }
        index += 1;
    }
    &split.otherwise
}

/// 0 if the rule holds. Without a jump: each would double the paths that the verifier walks.
#[inline(always)]
fn misses(rule: &SplitRule, seen: &Seen, far: AddressWords, port: u64) -> u64 {
    let network = ((far[0] & rule.mask[0]) ^ rule.network[0]) | ((far[1] & rule.mask[1]) ^ rule.network[1]);
    let protocol = (seen.rule_protocol ^ rule.protocol) & rule.protocol_mask;
    let family = (seen.family ^ rule.family) & rule.family_mask;
    // Both negative beyond their end: then the topmost bit is set.
    let below = port.wrapping_sub(u64::from(rule.first_port)) >> 63;
    let above = u64::from(rule.last_port).wrapping_sub(port) >> 63;
    let flags = (rule.flags ^ SplitRule::COUNTS) & !seen.rule_ports;
    network | u64::from(protocol | family) | below | above | flags
}

/// One of the branches, in proportion to their shares; the first one if none has a share.
#[inline(always)]
fn pick(shares: &Shares, hash: u32) -> u32 {
    let mut total = 0;
    let mut index = 0;
    while index < MAX_BRANCHES {
        total += u64::from(shares[index]);
        index += 1;
    }
    // Below `total`. The branch is the one within whose share the point lies: as many shares end at or before it.
    let point = without_bound((u64::from(hash) * total) >> 32);
    let (mut end, mut before, mut index) = (0, 0, 0);
    while index < MAX_BRANCHES {
        end += u64::from(shares[index]);
        before += 1 - (point.wrapping_sub(end) >> 63);
        index += 1;
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most eight")]
    {
        before as u32
    }
}

/// The same value, of which the compiler knows no bound: else it makes a comparison and a jump of the sign of a
/// difference.
#[inline(always)]
fn without_bound(value: u64) -> u64 {
    core::hint::black_box(value)
}

/// 32 well mixed bits: a multiplication carries each bit up, the shift brings it down again.
#[inline(always)]
fn hash(key: &FlowKey) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let ports = (u64::from(key.low_port) << 16) | u64::from(key.high_port);
    let last = (ports << 8) | u64::from(key.protocol);
    let words = [key.scope, key.low[0], key.low[1], key.high[0], key.high[1], last];
    let mut hash = 0u64;
    for word in words {
        hash = (hash ^ word).wrapping_mul(ODD);
        hash ^= hash >> 32;
    }
    (hash.wrapping_mul(ODD) >> 32) as u32
}
