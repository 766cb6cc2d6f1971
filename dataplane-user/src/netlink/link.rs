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
        LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, LinkMode,
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
/// A host end says that it waits for something, which never comes: so the kernel does not begin to speak IPv6 on it. Nor
/// has it a multicast route for it, and with ten thousand of those in one namespace each further one costs milliseconds.
const HOST_MODE: LinkMode = LinkMode::Dormant;
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
    /// Up and silent, as host ends are: see [`silence`].
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
        let (mut named, mut mode) = (false, LinkMode::Default);
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
                LinkAttribute::Mode(found) => mode = *found,
                _ => {}
            }
        }
        state.settled &= mode == HOST_MODE;
        named.then_some(state)
    }
}

/// Reads one interface by name.
pub(crate) fn get(name: &IfName) -> Request {
    read_one(named(name))
}

/// Reads one interface by index.
pub(crate) fn get_at(index: u32) -> Request {
    read_one(indexed(index))
}

/// Statistics are left out: they are most of the answer.
fn read_one(mut message: LinkMessage) -> Request {
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(RouteNetlinkMessage::GetLink(message), 0)
}

/// The interface in the answer to [`get`] or [`get_at`]; `None` when there is none.
pub(crate) fn found(answer: Answer) -> io::Result<Option<LinkState>> {
    match answer {
        Ok(messages) => Ok(messages.iter().find_map(read)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<LinkState> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    LinkState::read(message)
}

/// Every interface of the namespace that `keep` wants.
pub(crate) fn all(netlink: &mut Netlink, keep: impl Fn(&LinkState) -> bool) -> io::Result<Vec<LinkState>> {
    netlink.dump(&every(), |message| read(&message).filter(&keep))
}

/// The request for a dump of every interface; [`read`] reads its messages.
pub(crate) fn every() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Makes a pair, marks it and reads the host end, in one group: the kernel makes both ends, the host end silent, and gives
/// it its mark. Its index is `index` if that is given and free (else `EBUSY`). Both ends stay down: the kernel cannot
/// bring the workload's up before the pair is complete; and a host end that is up without a carrier makes it wait for
/// its queues, when it is read as when it gets a qdisc.
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
    silence(&mut pair);
    pair.attributes.extend([
        LinkAttribute::Mtu(new.mtu),
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
    vec![
        Request::new(RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL),
        Request::new(RouteNetlinkMessage::SetLink(mark), 0),
        get(&new.host),
    ]
}

/// Brings the interface with this index up.
pub(crate) fn up(index: u32) -> Request {
    let mut message = indexed(index);
    set_flags(&mut message, LinkFlags::Up, LinkFlags::empty());
    Request::new(RouteNetlinkMessage::SetLink(message), 0)
}

/// Puts a host end of ours back to how it is made.
pub(crate) fn settle(link: &Managed, mtu: u32) -> Vec<Request> {
    let mut message = indexed(link.index());
    message.attributes.push(LinkAttribute::Mtu(mtu));
    silence(&mut message);
    vec![
        Request::new(RouteNetlinkMessage::SetLink(message), 0),
        up(link.index()),
    ]
}

/// Lets the interface with this index have no IPv6 address but those it is given: the kernel makes none up, and has
/// nothing to announce. `EAFNOSUPPORT`: it has no IPv6, for its MTU or for this kernel.
pub(crate) fn no_automatic_addresses(index: u32) -> Request {
    let mut message = indexed(index);
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    Request::new(RouteNetlinkMessage::SetLink(message), 0)
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

/// Moves interfaces of ours to `group`, a number that nobody else uses (see [`unused_group`]), to be deleted with it. Returns
/// the index of one that is in it now, if there is one: some may be gone.
pub(crate) fn join_group(netlink: &mut Netlink, group: u32, links: &[&Managed]) -> io::Result<Option<u32>> {
    let join = |link: &&Managed| {
        let mut message = indexed(link.index());
        message.attributes.push(LinkAttribute::Group(group));
        Request::new(RouteNetlinkMessage::SetLink(message), 0)
    };
    let mut member = None;
    for (link, answer) in links.iter().zip(netlink.batch(links.iter().map(join).collect())?) {
        match answer {
            Ok(_) => member = Some(link.index()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(member)
}

/// Deletes all interfaces in `group`, and returns when the kernel has let go of them.
pub(crate) fn delete_group(netlink: &mut Netlink, group: u32) -> io::Result<()> {
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

/// No ARP, no multicast, no IPv6: the node itself never speaks on a wire. To be said before the interface is up.
fn silence(message: &mut LinkMessage) {
    set_flags(message, HOST_SET, HOST_CLEARED);
    message.attributes.push(LinkAttribute::Mode(HOST_MODE));
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
