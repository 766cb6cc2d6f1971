//! Clsact filters, for Linux below 6.6.
//!
//! A filter has no pin, so a symbolic link in the folder of links records each: its name is the interface, its target
//! says the index and whether the qdisc is ours too. The record is written before the filter, so that whatever
//! exists is known. The filter's preference is behind those that tc gives by itself, for the same reason as with tcx.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use dataplane_common::names;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::{attach::Attacher, pins::LinkPins};
use crate::{
    desired::IfName,
    netlink::socket::{Answer, Netlink, Request},
    ownership::is_host_name,
};

/// tc begins at 49152 (0xc000) and counts down; this is behind.
const PREFERENCE: u32 = 0xc7_1d;
/// The filter's handle at that preference.
const HANDLE: u32 = 1;
/// `ETH_P_ALL` in network order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
/// Where an ingress or egress filter hangs.
const INGRESS: TcHandle = TcHandle {
    major: TcHandle::ROOT.major,
    minor: TcHandle::MIN_INGRESS,
};
const EGRESS: TcHandle = TcHandle {
    major: TcHandle::ROOT.major,
    minor: TcHandle::MIN_EGRESS,
};
const RECORD_PREFIX: &str = "clsact";

/// Attaches by clsact filters.
pub(crate) struct Clsact {
    pub(crate) pins: LinkPins,
}

/// What is known about an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    index: u32,
    own_qdisc: bool,
}

fn filter_name() -> String {
    format!("tieline/{}", names::PROGRAM_WIRE_INGRESS)
}

impl Clsact {
    fn record(&self, name: &IfName) -> io::Result<Option<Record>> {
        let target = match std::fs::read_link(self.pins.path(name)) {
            Ok(target) => target.to_string_lossy().into_owned(),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut parts = target.split(':');
        let (prefix, index, own) = (parts.next(), parts.next(), parts.next());
        let index = index.and_then(|index| index.parse().ok());
        Ok(index
            .filter(|_| prefix == Some(RECORD_PREFIX))
            .map(|index| Record {
                index,
                own_qdisc: own == Some("own"),
            }))
    }

    fn write_record(&self, name: &IfName, record: Record) -> io::Result<()> {
        self.pins.remove(name)?;
        let qdisc = if record.own_qdisc { "own" } else { "found" };
        std::os::unix::fs::symlink(
            format!("{RECORD_PREFIX}:{}:{qdisc}", record.index),
            self.pins.path(name),
        )
    }

    /// Notes what is about to be attached. The qdisc of a host end is always ours; elsewhere it may have been there.
    fn note(&self, netlink: &mut Netlink, name: &IfName, index: u32) -> io::Result<()> {
        if self.record(name)?.is_some_and(|record| record.index == index) {
            return Ok(());
        }
        let own_qdisc = is_host_name(name.as_str()) || !has_clsact(netlink, index)?;
        self.write_record(name, Record { index, own_qdisc })
    }

    fn attach_noted(
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        interfaces: &[(&IfName, u32)],
    ) -> io::Result<Vec<io::Result<()>>> {
        let group = |(_, index): &(&IfName, u32)| {
            let qdisc = RouteNetlinkMessage::NewQueueDiscipline(qdisc(*index));
            // Without EXCL, the kernel exchanges the program of a filter that is there in one step.
            let filter = RouteNetlinkMessage::NewTrafficFilter(filter(*index, Some(program)));
            vec![
                Request::new(qdisc, NLM_F_CREATE | NLM_F_EXCL),
                Request::new(filter, NLM_F_CREATE),
            ]
        };
        let answers = netlink.groups(interfaces.iter().map(group).collect())?;
        let whole = |mut answers: Vec<Answer>| match (answers.pop(), answers.pop()) {
            (Some(filter), Some(Err(error))) if error.raw_os_error() == Some(libc::EEXIST) => {
                filter.map(drop)
            }
            (Some(filter), Some(qdisc)) => qdisc.and(filter).map(drop),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        };
        Ok(answers.into_iter().map(whole).collect())
    }

    fn detach_one(&self, netlink: &mut Netlink, name: &IfName) -> io::Result<()> {
        if let Some(record) = self.record(name)? {
            match take_off(netlink, record) {
                // The interface is gone, and the filter with it.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)
                    ) => {}
                other => other?,
            }
        }
        self.pins.remove(name)
    }
}

impl Attacher for Clsact {
    fn name(&self) -> &'static str {
        "clsact"
    }

    fn attach(
        &mut self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        interfaces: &[(&IfName, u32)],
    ) -> Vec<io::Result<()>> {
        let noted: Vec<_> = interfaces
            .iter()
            .map(|(name, index)| self.note(netlink, name, *index))
            .collect();
        let ready: Vec<_> = interfaces
            .iter()
            .zip(&noted)
            .filter(|(_, noted)| noted.is_ok())
            .map(|(at, _)| *at)
            .collect();
        let mut attached = match Self::attach_noted(netlink, program, &ready) {
            Ok(attached) => attached.into_iter(),
            Err(error) => {
                return interfaces
                    .iter()
                    .map(|_| Err(io::Error::new(error.kind(), error.to_string())))
                    .collect();
            }
        };
        noted
            .into_iter()
            .map(|noted| noted.and_then(|()| attached.next().unwrap_or(Ok(()))))
            .collect()
    }

    fn detach(&mut self, netlink: &mut Netlink, interfaces: &[&IfName]) -> Vec<io::Result<()>> {
        interfaces
            .iter()
            .map(|name| self.detach_one(netlink, name))
            .collect()
    }

    fn is_attached(&self, netlink: &mut Netlink, name: &IfName, index: u32) -> io::Result<bool> {
        if self.record(name)?.is_none_or(|record| record.index != index) {
            return Ok(false);
        }
        has_our_filter(netlink, index)
    }

    fn all(&self) -> io::Result<Vec<IfName>> {
        self.pins.all()
    }

    fn all_of(&self, interfaces: &mut dyn Iterator<Item = &IfName>) -> Vec<IfName> {
        interfaces
            .filter(|name| self.pins.exists(name))
            .cloned()
            .collect()
    }

    fn forget(&mut self, interface: &IfName) -> io::Result<()> {
        self.pins.remove(interface)
    }

    fn replace(&mut self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> io::Result<()> {
        for name in self.pins.all()? {
            let Some(record) = self.record(&name)? else {
                continue;
            };
            if has_our_filter(netlink, record.index).unwrap_or(false) {
                let new = RouteNetlinkMessage::NewTrafficFilter(filter(record.index, Some(program)));
                netlink.one(new, NLM_F_CREATE)?;
            }
        }
        Ok(())
    }
}

/// Takes our filter off, and the qdisc if it was ours and nobody else hung a filter on it.
fn take_off(netlink: &mut Netlink, record: Record) -> io::Result<()> {
    if has_our_filter(netlink, record.index)? {
        netlink.one(
            RouteNetlinkMessage::DelTrafficFilter(filter(record.index, None)),
            0,
        )?;
    }
    let in_use = filters(netlink, record.index, INGRESS, |_| true)?
        || filters(netlink, record.index, EGRESS, |_| true)?;
    if record.own_qdisc && !in_use && has_clsact(netlink, record.index)? {
        netlink.one(RouteNetlinkMessage::DelQueueDiscipline(qdisc(record.index)), 0)?;
    }
    Ok(())
}

fn has_our_filter(netlink: &mut Netlink, index: u32) -> io::Result<bool> {
    let name = filter_name();
    filters(netlink, index, INGRESS, |filter| {
        let options = filter.attributes.iter().filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        let named = |option: &TcOption| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(found)) if *found == name);
        filter.header.info >> 16 == PREFERENCE && options.flatten().any(named)
    })
}

/// Whether a filter at this hook satisfies `test`. An interface without the hook has none.
fn filters(
    netlink: &mut Netlink,
    index: u32,
    parent: TcHandle,
    test: impl Fn(&TcMessage) -> bool,
) -> io::Result<bool> {
    let mut query = message(index);
    query.header.parent = parent;
    let found = netlink.dump(
        &RouteNetlinkMessage::GetTrafficFilter(query),
        |message| match message {
            RouteNetlinkMessage::NewTrafficFilter(filter) => test(&filter).then_some(()),
            _ => None,
        },
    );
    match found {
        Ok(found) => Ok(!found.is_empty()),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn has_clsact(netlink: &mut Netlink, index: u32) -> io::Result<bool> {
    let query = RouteNetlinkMessage::GetQueueDiscipline(message(index));
    let found = netlink.dump(&query, |message| match message {
        RouteNetlinkMessage::NewQueueDiscipline(found)
            if u32::try_from(found.header.index) == Ok(index) && found.header.parent == TcHandle::CLSACT =>
        {
            Some(())
        }
        _ => None,
    })?;
    Ok(!found.is_empty())
}

fn message(index: u32) -> TcMessage {
    TcMessage::with_index(i32::try_from(index).unwrap_or(i32::MAX))
}

fn qdisc(index: u32) -> TcMessage {
    let mut qdisc = message(index);
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.header.handle = TcHandle {
        major: TcHandle::ROOT.major,
        minor: 0,
    };
    qdisc.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    qdisc
}

fn filter(index: u32, program: Option<BorrowedFd<'_>>) -> TcMessage {
    let mut filter = message(index);
    filter.header.parent = INGRESS;
    filter.header.handle = TcHandle::from(HANDLE);
    filter.header.info = PREFERENCE << 16 | ALL_PROTOCOLS;
    filter
        .attributes
        .push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    if let Some(program) = program {
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(filter_name())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
    }
    filter
}
