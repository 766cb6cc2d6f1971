//! The branch that is chosen, and that a flow keeps it.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, rc::Rc};

use proptest::prelude::*;

use super::{
    Tuple,
    frames::{ESP, SCTP, TCP, UDP, tuple},
    seen,
};
use crate::{
    abi::{
        FlowKey, FlowPin, Hop, Shares, Split, SplitBranch, SplitFlags, SplitRule, address_words, mapped_words,
    },
    flow::{FlowEntry, FlowTable, choose},
    verdict::Reason,
};

const SECOND: u64 = 1_000_000_000;

/// A table with room for `room` flows.
#[derive(Default)]
struct Table {
    flows: RefCell<HashMap<FlowKey, Rc<RefCell<FlowPin>>>>,
    room: usize,
}

impl Table {
    fn with_room(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    fn pin(&self, key: &FlowKey) -> FlowPin {
        *self.flows.borrow()[key].borrow()
    }
}

impl FlowTable for Table {
    type Entry = Rc<RefCell<FlowPin>>;

    fn find(&self, key: &FlowKey) -> Option<Self::Entry> {
        self.flows.borrow().get(key).cloned()
    }

    fn keep(&self, key: &FlowKey, pin: &FlowPin) -> bool {
        let mut flows = self.flows.borrow_mut();
        let fits = flows.len() < self.room || flows.contains_key(key);
        if fits {
            flows.insert(*key, Rc::new(RefCell::new(*pin)));
        }
        fits
    }
}

impl FlowEntry for Rc<RefCell<FlowPin>> {
    fn get(&self) -> FlowPin {
        *self.borrow()
    }

    fn set_branch(&self, branch: u32, state: u32) {
        let mut pin = self.borrow_mut();
        (pin.branch, pin.state) = (branch, state);
    }

    fn set_seen(&self, seen_ns: u64) {
        self.borrow_mut().seen_ns = seen_ns;
    }
}

/// The client's end, with branches of these ids and these shares in what no rule names; the last digit of an id in base
/// eight is its index.
fn split(branches: &[(u32, u16)]) -> Split {
    let mut split = Split {
        scope: 9,
        flags: SplitFlags::DECIDES.bits(),
        ..Split::default()
    };
    for (id, share) in branches {
        let index = SplitBranch::index_of(*id);
        split.otherwise[index] = *share;
        split.branches[index] = SplitBranch {
            hop: Hop::peer(*id),
            id: *id,
            ..SplitBranch::default()
        };
    }
    split
}

/// All of a rule for the branch at `index`.
fn only(index: usize) -> Shares {
    let mut shares = Shares::default();
    shares[index] = 1;
    shares
}

fn with_rules(mut split: Split, rules: &[SplitRule]) -> Split {
    split.rules[..rules.len()].copy_from_slice(rules);
    split
}

fn ports(protocol: u8, first_port: u16, last_port: u16, shares: Shares) -> SplitRule {
    SplitRule {
        first_port,
        last_port,
        protocol,
        protocol_mask: 0xff,
        shares,
        flags: SplitRule::COUNTS | SplitRule::PORTS,
        ..SplitRule::default()
    }
}

const REST: u32 = 0o20;
const WEB: u32 = 0o11;

/// Port 80 takes one branch, the rest another.
fn web() -> Split {
    with_rules(split(&[(REST, 1), (WEB, 0)]), &[ports(TCP, 80, 80, only(1))])
}

fn id(split: &Split, frame: &[u8], table: &Table, now: u64) -> (u32, Reason) {
    let (branch, reason) = choose(split, &seen(frame), table, now);
    (branch.id, reason)
}

/// What a rule says in words of addresses and lengths.
#[derive(Clone, Debug)]
struct Wanted {
    prefix: Option<(IpAddr, u8)>,
    ports: Option<(u16, u16)>,
    protocol: u8,
    branch: usize,
}

impl Wanted {
    fn rule(&self) -> SplitRule {
        let (network, mask, family) = match self.prefix {
            None => ([0; 2], [0; 2], 0),
            Some((address, length)) => {
                let (words, length, family) = match address {
                    IpAddr::V4(v4) => (mapped_words(v4.octets()), u32::from(length) + 96, 4),
                    IpAddr::V6(v6) => (address_words(&v6.octets()), u32::from(length), 6),
                };
                let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                let mask = address_words(&bits.to_be_bytes());
                ([words[0] & mask[0], words[1] & mask[1]], mask, family)
            }
        };
        let (first_port, last_port) = self.ports.unwrap_or((0, u16::MAX));
        SplitRule {
            network,
            mask,
            first_port,
            last_port,
            protocol: self.protocol,
            protocol_mask: if self.protocol == 0 { 0 } else { 0xff },
            family,
            family_mask: if family == 0 { 0 } else { 0xff },
            shares: only(self.branch),
            flags: SplitRule::COUNTS | if self.ports.is_some() { SplitRule::PORTS } else { 0 },
        }
    }

    fn holds(&self, tuple: &Tuple, far: (IpAddr, u16)) -> bool {
        let inside = |address: IpAddr, length: u8| match (address, far.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                length == 0 || u32::from(a) >> (32 - length) == u32::from(b) >> (32 - length)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                length == 0 || u128::from(a) >> (128 - length) == u128::from(b) >> (128 - length)
            }
            _ => false,
        };
        let has_ports = matches!(tuple.protocol, TCP | UDP | SCTP);
        let protocol = if tuple.protocol == 58 { 1 } else { tuple.protocol };
        (self.protocol == 0 || self.protocol == protocol)
            && self
                .prefix
                .is_none_or(|(address, length)| inside(address, length))
            && self
                .ports
                .is_none_or(|(first, last)| has_ports && (first..=last).contains(&far.1))
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let v4 = (0..3u8, 0..=32u8).prop_map(|(n, length)| ([10, 0, 0, n].into(), length));
    let v6 =
        (0..3u16, 0..=128u8).prop_map(|(n, length)| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, n, 7]), length));
    (
        prop::option::of(prop_oneof![v4, v6]),
        prop::option::of((0..3u16, 0..3u16).prop_map(|(a, b)| (a.min(b), a.max(b)))),
        prop::sample::select(vec![0, 1, TCP, UDP, SCTP, ESP]),
        1..4usize,
    )
        .prop_map(|(prefix, ports, protocol, branch)| Wanted {
            prefix,
            ports,
            protocol,
            branch,
        })
}

proptest! {
    #[test]
    fn the_first_rule_that_holds_decides_both_ways(rules in prop::collection::vec(wanted(), 0..=8), flow in tuple()) {
        let toward = with_rules(split(&[(0o10, 1), (0o11, 0), (0o12, 0), (0o13, 0)]), &rules.iter().map(Wanted::rule).collect::<Vec<_>>());
        let from = Split { flags: SplitFlags::FROM_FAR.bits(), ..toward };
        let far = (flow.destination, flow.destination_port);
        let model = rules.iter().find(|rule| rule.holds(&flow, far)).map_or(0o10, |rule| 0o10 + u32::try_from(rule.branch).unwrap());
        prop_assert_eq!(id(&toward, &flow.frame(), &Table::with_room(9), 0), (model, Reason::Forwarded));
        prop_assert_eq!(id(&from, &flow.returned().frame(), &Table::with_room(9), 0), (model, Reason::Forwarded));
        // Without room for it, the choice is the same and the reason says so.
        prop_assert_eq!(id(&toward, &flow.frame(), &Table::with_room(0), 0), (model, Reason::Unpinned));
    }

    #[test]
    fn a_flow_keeps_its_branch_whatever_becomes_of_rules_and_shares(flow in tuple(), shares in prop::collection::vec(0..9u16, 3)) {
        let table = Table::with_room(9);
        let before = split(&[(0o11, 5), (0o12, 5), (0o13, 5)]);
        let first = id(&before, &flow.flags(0x10).frame(), &table, 0);
        let after = split(&[(0o13, shares[0]), (0o12, shares[1]), (0o11, shares[2])]);
        let returning = Split { flags: SplitFlags::FROM_FAR.bits(), ..after };
        prop_assert_eq!(id(&after, &flow.flags(0x10).frame(), &table, SECOND), first);
        prop_assert_eq!(id(&returning, &flow.returned().flags(0x10).frame(), &table, SECOND), first);
    }

    #[test]
    fn without_a_table_both_directions_take_one_branch(flow in tuple(), shares in prop::collection::vec(1..9u16, 3)) {
        let toward = split(&[(0o11, shares[0]), (0o12, shares[1]), (0o13, shares[2])]);
        let from = Split { flags: SplitFlags::FROM_FAR.bits(), ..toward };
        let table = Table::with_room(0);
        prop_assert_eq!(id(&toward, &flow.frame(), &table, 0), id(&from, &flow.returned().frame(), &table, 0));
    }
}

#[test]
fn new_flows_are_shared_out_and_a_branch_without_a_share_gets_none() {
    let split = split(&[(0o10, 3), (0o11, 1), (0o12, 0)]);
    let table = Table::with_room(0);
    let mut taken = HashMap::new();
    for port in 0..4000 {
        let frame = Tuple::v4(UDP, 1000 + port, 53).frame();
        *taken.entry(id(&split, &frame, &table, 0).0).or_insert(0) += 1;
    }
    let share = |id| taken.get(&id).copied().unwrap_or(0);
    assert!((2850..3150).contains(&share(0o10)), "{taken:?}");
    assert!((850..1150).contains(&share(0o11)), "{taken:?}");
    assert_eq!(share(0o12), 0);
}

#[test]
fn shares_of_a_rule_count_for_what_it_names_only() {
    let split = with_rules(
        split(&[(0o10, 9), (0o11, 0), (0o12, 0)]),
        &[ports(TCP, 80, 80, [0, 1, 1, 0, 0, 0, 0, 0])],
    );
    let table = Table::with_room(0);
    let web: Vec<_> = (0..100)
        .map(|port| id(&split, &Tuple::v4(TCP, 1000 + port, 80).frame(), &table, 0).0)
        .collect();
    assert!(
        web.contains(&0o11) && web.contains(&0o12) && !web.contains(&0o10),
        "{web:?}"
    );
}

#[test]
fn a_flow_whose_branch_is_gone_gets_another_at_the_clients_end_and_only_there() {
    let table = Table::with_room(9);
    let flow = Tuple::v4(TCP, 5000, 80);
    assert_eq!(id(&web(), &flow.frame(), &table, 0).0, WEB);
    let rest = split(&[(REST, 1)]);
    let elsewhere = Split {
        flags: SplitFlags::FROM_FAR.bits(),
        ..rest
    };
    id(&elsewhere, &flow.returned().frame(), &table, 0);
    assert_eq!(
        id(&web(), &flow.frame(), &table, 0).0,
        WEB,
        "another end leaves it"
    );
    assert_eq!(id(&rest, &flow.frame(), &table, 0).0, REST);
    assert_eq!(id(&web(), &flow.frame(), &table, 0).0, REST, "and there it stays");
}

#[test]
fn errors_follow_their_flow_and_pin_nothing() {
    let table = Table::with_room(9);
    let flow = Tuple::v4(UDP, 5000, 53);
    let before = split(&[(0o10, 0), (0o11, 1)]);
    let after = Split {
        flags: SplitFlags::FROM_FAR.bits(),
        ..split(&[(0o10, 1), (0o11, 0)])
    };
    assert_eq!(
        id(&after, &flow.error(None), &table, 0).0,
        0o10,
        "by the rules while it has no branch"
    );
    assert_eq!(table.flows.borrow().len(), 0);
    assert_eq!(id(&before, &flow.frame(), &table, 0).0, 0o11);
    assert_eq!(
        id(&after, &flow.error(None), &table, 0),
        (0o11, Reason::Forwarded)
    );
}

#[test]
fn fragments_follow_the_first_one_and_one_alone_is_counted() {
    let table = Table::with_room(9);
    let flow = Tuple::v4(TCP, 5000, 80);
    assert_eq!(
        id(&web(), &flow.fragment(4, 1, true), &table, 0),
        (REST, Reason::FragmentAlone)
    );
    assert_eq!(
        id(&web(), &flow.fragment(4, 0, true), &table, 0),
        (WEB, Reason::Forwarded)
    );
    for (offset, more) in [(1, true), (2, false)] {
        assert_eq!(
            id(&web(), &flow.fragment(4, offset, more), &table, 0),
            (WEB, Reason::Forwarded)
        );
    }
    assert_eq!(
        id(&web(), &flow.error(Some((4, 1, true))), &table, 0),
        (WEB, Reason::Forwarded)
    );
}

#[test]
fn what_is_no_flow_takes_the_branch_that_is_named_first() {
    let table = Table::with_room(9);
    let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
    assert_eq!(
        id(
            &Split {
                first: 2,
                ..split(&[(0o10, 1), (0o12, 0)])
            },
            &arp,
            &table,
            0
        ),
        (0o12, Reason::Forwarded)
    );
    assert!(table.flows.borrow().is_empty());
}

#[test]
fn the_time_and_the_end_of_a_connection_are_noted() {
    let table = Table::with_room(9);
    let split = split(&[(0o10, 1)]);
    let flow = Tuple::v4(TCP, 5000, 80);
    let key = seen(&flow.frame()).key(9);
    id(&split, &flow.beginning().frame(), &table, SECOND);
    id(&split, &flow.frame(), &table, SECOND + 1);
    assert_eq!(
        table.pin(&key),
        FlowPin {
            branch: 0o10,
            state: 0,
            seen_ns: SECOND
        }
    );
    id(&split, &flow.flags(0x11).frame(), &table, 2 * SECOND);
    assert!(!table.pin(&key).is_closed(), "one end may still send");
    id(&split, &flow.returned().flags(0x11).frame(), &table, 2 * SECOND);
    assert!(table.pin(&key).is_closed());
    assert_eq!(table.pin(&key).seen_ns, 2 * SECOND);
    id(&split, &flow.beginning().frame(), &table, 3 * SECOND);
    assert!(!table.pin(&key).is_closed(), "the ports are used again");
}

const NEW: u32 = 0o20;
const OLD: u32 = 0o11;

/// New flows take the new branch, which takes over from the old one.
fn draining(learn_until_ns: u64) -> Split {
    let mut split = split(&[(NEW, 1), (OLD, 0)]);
    split.branches[0].before = 2;
    split.branches[1].flags = SplitBranch::DRAINS;
    split.learn_until_ns = learn_until_ns;
    split
}

#[test]
fn while_a_branch_drains_what_is_older_stays_and_what_is_new_goes_on() {
    let table = Table::with_room(99);
    let (learning, later) = (SECOND, 9 * SECOND);
    let split = draining(5 * SECOND);
    let tcp = |port| Tuple::v4(TCP, port, 80);
    let udp = |port| Tuple::v4(UDP, port, 53);
    let go = |frame: Vec<u8>, now| id(&split, &frame, &table, now).0;
    assert_eq!(go(tcp(1).frame(), learning), OLD, "a connection that is there");
    assert_eq!(go(tcp(2).beginning().frame(), learning), NEW, "one that begins");
    assert_eq!(go(tcp(2).frame(), learning), NEW, "and goes on");
    assert_eq!(
        go(udp(1).frame(), learning),
        OLD,
        "a flow of which nobody knows since when"
    );
    assert_eq!(
        go(udp(2).frame(), later),
        NEW,
        "one that was silent while learning"
    );
    assert_eq!(go(udp(1).frame(), later), OLD, "one that was seen then");
    assert_eq!(
        go(tcp(3).frame(), later),
        OLD,
        "an idle connection that speaks again"
    );
    assert_eq!(
        go(tcp(1).beginning().frame(), later),
        NEW,
        "ports that are used again"
    );
    assert_eq!(go(tcp(1).frame(), later), NEW, "stay there");
}

#[test]
fn when_rules_come_what_is_there_stays_and_after_learning_they_decide_alone() {
    let table = Table::with_room(99);
    let mut split = web();
    split.branches[1].before = 1;
    split.learn_until_ns = 5 * SECOND;
    let go = |frame: Vec<u8>, now| id(&split, &frame, &table, now).0;
    let web = |port| Tuple::v4(TCP, port, 80);
    assert_eq!(go(web(1).frame(), SECOND), REST, "a connection that is there");
    assert_eq!(go(web(2).beginning().frame(), SECOND), WEB, "one that begins");
    assert_eq!(go(web(1).frame(), 9 * SECOND), REST, "what was learnt stays");
    assert_eq!(
        go(web(3).frame(), 9 * SECOND),
        WEB,
        "the old branch does not drain"
    );
}
