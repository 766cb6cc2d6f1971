//! Interfaces of the agent's namespace: making, reading, settling and deleting them.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    },
};

use super::{
    routing,
    socket::{Answer, Netlink, Request},
};
use crate::{
    desired::{IfName, Mac},
    op::NewEnd,
    ownership::Managed,
};

/// Transmit queues of a veth end: one suffices, for the redirect does not go through a queue, and each costs memory.
const QUEUES: u32 = 1;
/// A host end is made with an MTU that IPv6 does not take, so that the kernel gives it no IPv6 state yet: it would
/// join the routers' multicast group in a forwarding namespace and report that as soon as the end is up. IPv6 comes
/// with the real MTU, when the multicast flag is off and no group is joined.
const MTU_WITHOUT_IPV6: u32 = 1000;
/// Flags that a host end has: up, and without ARP.
const HOST_SET: LinkFlags = LinkFlags::Noarp;
/// Flags that a host end does not have: without multicast, the kernel joins no groups on it and reports none.
const HOST_CLEARED: LinkFlags = LinkFlags::Multicast;

/// What the kernel says about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) index: u32,
    pub(crate) name: IfName,
    pub(crate) alias: Option<String>,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Up and silent, as host ends are.
    pub(crate) settled: bool,
    /// Index of a veth's other end, in its namespace.
    pub(crate) peer: Option<u32>,
    pub(crate) group: u32,
    /// Set up to route packets, as [`routing::forward`] does.
    pub(crate) forwards: bool,
}

impl LinkState {
    fn read(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut state = Self {
            index: message.header.index,
            name: IfName::generated("?".to_owned()),
            alias: None,
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            settled: flags.contains(LinkFlags::Up | HOST_SET) && !flags.intersects(HOST_CLEARED),
            peer: None,
            group: 0,
            forwards: false,
        };
        let mut named = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => {
                    state.name = IfName::new(name).ok()?;
                    named = true;
                }
                LinkAttribute::IfAlias(alias) => state.alias = Some(alias.clone()),
                LinkAttribute::Address(bytes) => state.mac = bytes.as_slice().try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
                LinkAttribute::Link(peer) => state.peer = Some(*peer),
                LinkAttribute::Group(group) => state.group = *group,
                LinkAttribute::AfSpecUnspec(families) => state.forwards = routing::forwards(families),
                _ => {}
            }
        }
        named.then_some(state)
    }
}

/// Reads one interface by name. Statistics are left out: they are most of the answer.
pub(crate) fn get(name: &IfName) -> Request {
    let mut message = named(name);
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(RouteNetlinkMessage::GetLink(message), 0)
}

/// The interface in the answer to [`get`]; `None` when there is none of that name.
pub(crate) fn found(answer: Answer) -> io::Result<Option<LinkState>> {
    match answer {
        Ok(messages) => Ok(messages.iter().find_map(read)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(message: &RouteNetlinkMessage) -> Option<LinkState> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    LinkState::read(message)
}

/// Every interface of the namespace that `keep` wants.
pub(crate) fn all(netlink: &mut Netlink, keep: impl Fn(&LinkState) -> bool) -> io::Result<Vec<LinkState>> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    netlink.dump(&RouteNetlinkMessage::GetLink(message), |message| {
        read(&message).filter(&keep)
    })
}

/// Makes a pair and marks it, in one group: the kernel makes both ends, gives the host end its mark, makes it silent
/// *before* it is up (so that it never sends a frame of its own), and tells its index, which is `index` if that is
/// given and free (else `EBUSY`). The workload's end stays down:
/// the kernel cannot bring it up before the pair is complete.
pub(crate) fn create(new: &NewEnd, index: Option<u32>, netns: BorrowedFd<'_>) -> Vec<Request> {
    let mut peer = named(&new.end.name);
    peer.attributes.extend([
        LinkAttribute::Address(new.end.mac.0.to_vec()),
        LinkAttribute::Mtu(new.mtu),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ]);
    let mut pair = named(&new.host);
    pair.header.index = index.unwrap_or(0);
    pair.attributes.extend([
        LinkAttribute::Mtu(MTU_WITHOUT_IPV6),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    let mut mark = named(&new.host);
    mark.attributes
        .push(LinkAttribute::IfAlias(new.mark.as_str().to_owned()));
    set_flags(&mut mark, HOST_SET, HOST_CLEARED);
    let mut size = named(&new.host);
    size.attributes.push(LinkAttribute::Mtu(new.mtu));
    // The kernel reads the flags first: the end is up before the mode for IPv6 addresses is set. No address is made
    // before there is a carrier, and the other end is down.
    let mut up = named(&new.host);
    silence(&mut up);
    set_flags(&mut up, HOST_SET | LinkFlags::Up, HOST_CLEARED);
    let set = |message| Request::new(RouteNetlinkMessage::SetLink(message), 0);
    let make = Request::new(RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL);
    // Read before it is up: reading an end that is up without a carrier makes the kernel wait for its queues.
    vec![make, set(mark), set(size), get(&new.host), set(up)]
}

/// Puts a host end of ours back to how it is made.
pub(crate) fn settle(link: &Managed, mtu: u32) -> Vec<Request> {
    let mut message = indexed(link.index());
    message.attributes.push(LinkAttribute::Mtu(mtu));
    silence(&mut message);
    let mut up = indexed(link.index());
    set_flags(&mut up, LinkFlags::Up, LinkFlags::empty());
    vec![
        Request::new(RouteNetlinkMessage::SetLink(message), 0),
        Request::new(RouteNetlinkMessage::SetLink(up), 0),
    ]
}

/// Sets hardware address, MTU and up, of the interface with this index.
pub(crate) fn change(index: u32, mac: Option<Mac>, mtu: Option<u32>) -> Request {
    let mut message = indexed(index);
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    set_flags(&mut message, LinkFlags::Up, LinkFlags::empty());
    Request::new(RouteNetlinkMessage::SetLink(message), 0)
}

/// Deletes the interface with this index.
pub(crate) fn delete(link: &Managed) -> Request {
    Request::new(RouteNetlinkMessage::DelLink(indexed(link.index())), 0)
}

/// Deletes interfaces of ours as one group, which costs the kernel one grace period in place of one each.
///
/// They are moved to `group`, which is a number that nobody else uses, see [`unused_group`], and the group is deleted.
pub(crate) fn delete_as_group(netlink: &mut Netlink, group: u32, links: &[&Managed]) -> io::Result<()> {
    let join = |link: &&Managed| {
        let mut message = indexed(link.index());
        message.attributes.push(LinkAttribute::Group(group));
        Request::new(RouteNetlinkMessage::SetLink(message), 0)
    };
    let mut members = 0;
    for answer in netlink.batch(links.iter().map(join).collect())? {
        match answer {
            Ok(_) => members += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    if members == 0 {
        return Ok(());
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    match netlink.one(RouteNetlinkMessage::DelLink(message), 0) {
        Err(error) if error.raw_os_error() != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// A group number that no interface has: a random one, so that nobody comes upon it later.
pub(crate) fn unused_group(netlink: &mut Netlink) -> io::Result<u32> {
    let used: BTreeSet<u32> = all(netlink, |link| link.group != 0)?
        .into_iter()
        .map(|link| link.group)
        .collect();
    let tries = std::iter::repeat_with(|| fastrand::u32(1..i32::MAX.cast_unsigned()));
    let mut unused = tries.filter(|group| !used.contains(group));
    unused
        .next()
        .ok_or_else(|| io::Error::from(io::ErrorKind::ResourceBusy))
}

/// No ARP, no multicast, no IPv6 address that the kernel makes up.
fn silence(message: &mut LinkMessage) {
    set_flags(message, HOST_SET, HOST_CLEARED);
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
}

fn set_flags(message: &mut LinkMessage, set: LinkFlags, cleared: LinkFlags) {
    message.header.flags = set;
    message.header.change_mask = set | cleared;
}

fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

pub(super) fn indexed(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}
