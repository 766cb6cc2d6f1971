//! Raw frames on an interface: sent as they are, received with everything the kernel knows about them.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, setsockopt, socket, sockopt,
    },
};

use crate::{Net, NetNs, sys};

/// Larger than any frame: a super-packet of 64 KiB with headers.
const MAX_FRAME: usize = 70_000;
/// Length of `struct virtio_net_hdr`.
const VNET_HDR: usize = 10;
/// Flag of `virtio_net_hdr`: the checksum is to be completed.
const NEEDS_CSUM: u8 = 1;
/// Receive buffer in octets.
const RECEIVE_BUFFER: usize = 32 * 1024 * 1024;

/// Sends and receives whole Ethernet frames at one interface. It hears every frame that the interface receives,
/// whatever its address, and none that it sends.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
    interface: String,
}

/// A frame that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The frame as it was on the wire: a VLAN tag that the kernel took out is back in its place.
    pub bytes: Vec<u8>,
    /// Set for a segmentation-offload super-packet.
    pub gso: Option<Gso>,
    /// The transport checksum was not filled in yet.
    pub checksum_not_ready: bool,
}

/// How a super-packet is cut into segments (`virtio_net_hdr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What is cut.
    pub kind: GsoKind,
    /// Payload octets of each segment.
    pub segment: u16,
    /// Octets of all headers, from Ethernet to transport.
    pub header_len: u16,
    /// Where the transport header begins.
    pub transport_offset: u16,
}

/// What a super-packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpIpv4,
    /// TCP over IPv6.
    TcpIpv6,
    /// UDP segmentation.
    Udp,
}

impl GsoKind {
    /// Whether this kernel lets a packet socket send it: UDP segmentation came with Linux 6.2.
    #[must_use]
    pub fn can_be_sent(self) -> bool {
        self != Self::Udp || kernel_version() >= (6, 2)
    }

    const fn number(self) -> u8 {
        match self {
            Self::TcpIpv4 => 1,
            Self::TcpIpv6 => 4,
            Self::Udp => 5,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        const ECN: u8 = 0x80;
        [Self::TcpIpv4, Self::TcpIpv6, Self::Udp]
            .into_iter()
            .find(|kind| kind.number() == number & !ECN)
    }

    /// Where the checksum lies in the transport header.
    const fn checksum_offset(self) -> u16 {
        match self {
            Self::TcpIpv4 | Self::TcpIpv6 => 16,
            Self::Udp => 6,
        }
    }
}

impl FrameSocket {
    /// Opens one at `interface` of `netns`.
    pub fn open(netns: &NetNs, interface: &str) -> Result<Self> {
        netns.run(|| Self::open_here(interface))
    }

    /// Opens one at `interface` of the calling thread's namespace.
    pub fn open_here(interface: &str) -> Result<Self> {
        Self::listen(interface).with_context(|| format!("listen for frames on {interface}"))
    }

    fn listen(interface: &str) -> Result<Self> {
        let ifindex = Net::here()?.link(interface)?.ifindex;
        // Protocol 0: nothing is received before the socket is bound to its interface.
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        sys::set_packet_option(fd.as_fd(), &1, libc::PACKET_AUXDATA)?;
        sys::set_packet_option(fd.as_fd(), &1, libc::PACKET_VNET_HDR)?;
        sys::set_packet_option(fd.as_fd(), &1, libc::PACKET_IGNORE_OUTGOING)?;
        let promiscuous = libc::packet_mreq {
            mr_ifindex: i32::try_from(ifindex)?,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        sys::set_packet_option(fd.as_fd(), &promiscuous, libc::PACKET_ADD_MEMBERSHIP)?;
        sys::bind_packet(fd.as_fd(), ifindex)?;
        Ok(Self {
            fd,
            interface: interface.to_owned(),
        })
    }

    /// Sends a frame as it is. The kernel refuses less than an Ethernet header and more than the interface's MTU
    /// with headers.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.send_with([0; VNET_HDR], frame)
    }

    /// Sends a super-packet. The transport checksum must hold the pseudo-header's sum.
    pub fn send_gso(&self, frame: &[u8], gso: Gso) -> Result<()> {
        let mut header = [0; VNET_HDR];
        header[0] = NEEDS_CSUM;
        header[1] = gso.kind.number();
        header[2..4].copy_from_slice(&gso.header_len.to_ne_bytes());
        header[4..6].copy_from_slice(&gso.segment.to_ne_bytes());
        header[6..8].copy_from_slice(&gso.transport_offset.to_ne_bytes());
        header[8..10].copy_from_slice(&gso.kind.checksum_offset().to_ne_bytes());
        self.send_with(header, frame)
    }

    fn send_with(&self, header: [u8; VNET_HDR], frame: &[u8]) -> Result<()> {
        let bytes = [header.as_slice(), frame].concat();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.fd);
        let sent = send(fd, &bytes, MsgFlags::empty())
            .with_context(|| format!("send a frame of {} octets on {}", frame.len(), self.interface))?;
        ensure!(
            sent == bytes.len(),
            "only {sent} of {} octets were sent",
            bytes.len()
        );
        Ok(())
    }

    /// The next frame, or `None` after `timeout`.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Received>> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; MAX_FRAME];
        loop {
            match sys::receive_packet(self.fd.as_fd(), &mut buffer) {
                Ok((length, auxiliary)) => return decode(&buffer, length, auxiliary).map(Some),
                // The interface is down or went away: nothing more comes until it is back.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).with_context(|| format!("receive on {}", self.interface)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut wait = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
            poll(&mut wait, left)?;
        }
    }

    /// Every frame that has arrived, until none comes for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Result<Vec<Received>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(quiet)? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

/// Major and minor number of the running kernel; zeros if its release has another form.
fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn decode(buffer: &[u8], length: usize, auxiliary: sys::Auxiliary) -> Result<Received> {
    ensure!(
        length <= buffer.len(),
        "a frame of {length} octets exceeds the buffer"
    );
    ensure!(length >= VNET_HDR, "a frame without its header");
    let word = |at: usize| u16::from_ne_bytes([buffer[at], buffer[at + 1]]);
    let gso = GsoKind::from_number(buffer[1]).map(|kind| Gso {
        kind,
        segment: word(4),
        header_len: word(2),
        transport_offset: word(6),
    });
    let checksum_not_ready = auxiliary.checksum_not_ready;
    let mut bytes = buffer[VNET_HDR..length].to_vec();
    if let Some((tpid, tci)) = auxiliary.vlan
        && bytes.len() >= 12
    {
        bytes.splice(12..12, tpid.to_be_bytes().into_iter().chain(tci.to_be_bytes()));
    }
    Ok(Received {
        bytes,
        gso,
        checksum_not_ready,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Mac,
        frame::{Frame, IpPacket, Payload, ethertype},
    };

    struct Pair {
        _a: NetNs,
        _b: NetNs,
        left: FrameSocket,
        right: FrameSocket,
    }

    fn pair() -> Pair {
        let (a, b) = (NetNs::new("fra").unwrap(), NetNs::new("frb").unwrap());
        for netns in [&a, &b] {
            netns.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        a.net(|net| {
            net.add_veth("left", "right", Some(&b))?;
            net.set_up("left")
        })
        .unwrap();
        b.net(|net| net.set_up("right")).unwrap();
        let (left, right) = (
            FrameSocket::open(&a, "left").unwrap(),
            FrameSocket::open(&b, "right").unwrap(),
        );
        Pair {
            _a: a,
            _b: b,
            left,
            right,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn frames_of_every_kind_arrive_as_they_were_sent() {
        let pair = pair();
        let (x, y) = (Mac::numbered(1), Mac::numbered(2));
        let udp = |data: &[u8]| {
            let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
            Frame::ip(x, y, &IpPacket::new(src, dst, Payload::Udp(5, 6, data.to_vec())))
        };
        let frames = [
            Frame::ethernet(x, y, ethertype::EXPERIMENT, b""),
            Frame::ethernet(x, Mac::BROADCAST, ethertype::LLDP, b"hello"),
            Frame::llc(x, Mac([1, 0x80, 0xc2, 0, 0, 0]), b"spanning tree"),
            Frame::arp_request(x, Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED),
            udp(b"plain"),
            udp(b"tagged").tagged(ethertype::VLAN, 0x2005),
            udp(b"nested")
                .tagged(ethertype::VLAN, 7)
                .tagged(ethertype::QINQ, 8),
            udp(&[7; 1400]),
        ];
        for frame in &frames {
            pair.left.send(frame.bytes()).unwrap();
            let got = pair.right.receive(SECOND).unwrap().expect("a frame");
            assert_eq!(got.bytes, frame.bytes());
            assert_eq!(got.gso, None);
        }
        assert_eq!(
            pair.left.receive(Duration::ZERO).unwrap(),
            None,
            "it heard what it sent"
        );
    }

    use std::net::Ipv4Addr;

    #[test]
    fn super_packets_arrive_whole() {
        let pair = pair();
        let families = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
        for (src, dst) in families {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            for payload in [
                Payload::Tcp(5, 6, vec![7; 60_000]),
                Payload::Udp(5, 6, vec![7; 30_000]),
            ] {
                let packet = IpPacket::new(src, dst, payload);
                let (frame, gso) = packet.gso(Mac::numbered(1), Mac::numbered(2), 1000).unwrap();
                if !gso.kind.can_be_sent() {
                    eprintln!("SKIPPED: {:?} needs a newer kernel", gso.kind);
                    continue;
                }
                pair.left.send_gso(&frame, gso).unwrap();
                let got = pair.right.receive(SECOND).unwrap().expect("a frame");
                assert_eq!(got.bytes.len(), frame.len());
                assert_eq!(got.gso.map(|gso| (gso.kind, gso.segment)), Some((gso.kind, 1000)));
            }
        }
    }

    #[test]
    fn less_than_a_header_is_refused() {
        let pair = pair();
        let frame = Frame::ethernet(Mac::numbered(1), Mac::numbered(2), 0x0800, b"").truncated(13);
        assert!(pair.left.send(frame.bytes()).is_err());
    }
}
