//! What the traffic-control messages of both clsact back ends have in common.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

/// tc begins at 49152 (0xc000) and counts down; this is behind.
const PREFERENCE: u32 = 0xc7_1d;
/// The filter's handle at that preference.
const HANDLE: u32 = 1;
/// `ETH_P_ALL` in network order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;

/// About one interface.
pub(super) fn message(index: u32) -> TcMessage {
    TcMessage::with_index(i32::try_from(index).unwrap_or(i32::MAX))
}

/// A qdisc at the hook of an interface.
pub(super) fn qdisc(index: u32, kind: &str) -> TcMessage {
    let mut qdisc = message(index);
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.header.handle = TcHandle {
        major: TcHandle::ROOT.major,
        minor: 0,
    };
    qdisc.attributes.push(TcAttribute::Kind(kind.to_owned()));
    qdisc
}

/// Our filter at `place`; with a program and the filter's name to install it, without to name it.
pub(super) fn filter(place: TcMessage, program: Option<(BorrowedFd<'_>, &str)>) -> TcMessage {
    let mut filter = place;
    filter.header.handle = TcHandle::from(HANDLE);
    filter.header.info = PREFERENCE << 16 | ALL_PROTOCOLS;
    filter
        .attributes
        .push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    if let Some((program, name)) = program {
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
    }
    filter
}

/// Whether this is the filter of ours with this name.
pub(super) fn is_filter(message: &RouteNetlinkMessage, name: &str) -> bool {
    let RouteNetlinkMessage::NewTrafficFilter(filter) = message else {
        return false;
    };
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let named = |option: &TcOption| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(found)) if found == name);
    filter.header.info >> 16 == PREFERENCE && options.flatten().any(named)
}
