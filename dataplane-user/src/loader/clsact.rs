//! One clsact filter per interface: for interfaces that are not ours, below Linux 6.6.
//!
//! A filter has no pin, so a symbolic link in the folder of links records each: its name is the interface, its target
//! says the index and whether the qdisc is ours too. The record is written before the filter, so that whatever
//! exists is known. The filter's preference is behind those that tc gives by itself, for the same reason as with tcx.

use std::{io, os::fd::BorrowedFd};

use dataplane_common::names;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

use super::{pins::LinkPins, tc};
use crate::{desired::IfName, netlink::socket::Netlink};

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

    /// Notes what is about to be attached, and whether somebody else's qdisc was there.
    fn note(&self, netlink: &mut Netlink, name: &IfName, index: u32) -> io::Result<()> {
        if self.record(name)?.is_some_and(|record| record.index == index) {
            return Ok(());
        }
        let own_qdisc = !has_clsact(netlink, index)?;
        self.write_record(name, Record { index, own_qdisc })
    }

    /// Attaches, by name and index. Where it is attached already nothing changes.
    pub(super) fn attach(
        &self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        name: &IfName,
        index: u32,
    ) -> io::Result<()> {
        self.note(netlink, name, index)?;
        let qdisc = RouteNetlinkMessage::NewQueueDiscipline(tc::qdisc(index, "clsact"));
        match netlink.one(qdisc, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => _ = other?,
        }
        // Without EXCL, the kernel exchanges the program of a filter that is there in one step.
        let filter = RouteNetlinkMessage::NewTrafficFilter(filter(index, Some(program)));
        netlink.one(filter, NLM_F_CREATE).map(drop)
    }

    /// Detaches. Where it is not attached, or the interface is gone, only the record goes.
    pub(super) fn detach(&self, netlink: &mut Netlink, name: &IfName) -> io::Result<()> {
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

    /// Whether it is attached to this interface: name and index, for names come back with other interfaces.
    pub(super) fn is_attached(&self, netlink: &mut Netlink, name: &IfName, index: u32) -> io::Result<bool> {
        if self.record(name)?.is_none_or(|record| record.index != index) {
            return Ok(false);
        }
        has_our_filter(netlink, index)
    }

    /// Puts another program in the place of the attached one everywhere; no packet sees neither or both.
    pub(super) fn replace(&self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> io::Result<()> {
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
        netlink.one(
            RouteNetlinkMessage::DelQueueDiscipline(tc::qdisc(record.index, "clsact")),
            0,
        )?;
    }
    Ok(())
}

fn has_our_filter(netlink: &mut Netlink, index: u32) -> io::Result<bool> {
    let name = filter_name();
    filters(netlink, index, INGRESS, |filter| tc::is_filter(filter, &name))
}

/// Whether a filter at this hook satisfies `test`. An interface without the hook has none.
fn filters(
    netlink: &mut Netlink,
    index: u32,
    parent: TcHandle,
    test: impl Fn(&RouteNetlinkMessage) -> bool,
) -> io::Result<bool> {
    let mut query = tc::message(index);
    query.header.parent = parent;
    let found = netlink.dump(&RouteNetlinkMessage::GetTrafficFilter(query), |message| {
        (matches!(message, RouteNetlinkMessage::NewTrafficFilter(_)) && test(&message)).then_some(())
    });
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
    let query = RouteNetlinkMessage::GetQueueDiscipline(tc::message(index));
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

fn filter(index: u32, program: Option<BorrowedFd<'_>>) -> TcMessage {
    let mut place = tc::message(index);
    place.header.parent = INGRESS;
    let name = filter_name();
    tc::filter(place, program.map(|program| (program, name.as_str())))
}
