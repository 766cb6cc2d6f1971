//! The laboratory's only unsafe code: system calls for which no crate has a safe wrapper.
#![expect(unsafe_code, reason = "packet sockets and TCP_INFO have no safe wrapper")]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

/// Receives every protocol.
const ETH_P_ALL: u16 = 0x0003;

/// What the kernel says about a received frame besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Auxiliary {
    /// VLAN tag that was taken out of the frame: protocol (host order) and control information.
    pub(crate) vlan: Option<(u16, u16)>,
    /// The transport checksum is left to the receiver (`TP_STATUS_CSUMNOTREADY`).
    pub(crate) checksum_not_ready: bool,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

/// Binds a packet socket to one interface, for every protocol.
pub(crate) fn bind_packet(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the descriptor is open while it is borrowed; `address` is a whole `sockaddr_ll` that lives through
    // the call, and the length is its size.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            socklen::<libc::sockaddr_ll>(),
        )
    })
}

/// Sets an option of level `SOL_PACKET`. `T` must be the option's type.
pub(crate) fn set_packet_option<T: PacketOption>(
    fd: BorrowedFd<'_>,
    value: &T,
    name: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed; the pointer leads to a whole `T`, the length is its
    // size, and the kernel only reads that much.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            ptr::from_ref(value).cast(),
            socklen::<T>(),
        )
    })
}

/// Plain types that packet socket options take.
pub(crate) trait PacketOption: Copy {}
impl PacketOption for libc::c_int {}
impl PacketOption for libc::packet_mreq {}

/// Receives one frame into `buffer` without blocking; returns its length, which may exceed the buffer.
pub(crate) fn receive_packet(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Auxiliary)> {
    // Aligned for `cmsghdr` and large enough for one auxiliary record.
    let mut control = [0u64; 16];
    let mut data = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is plain old data for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the descriptor is open while it is borrowed; `message` points to `buffer` and `control`, which
    // live through the call and are not used otherwise meanwhile, with their true lengths.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length, auxiliary(&message)))
}

fn auxiliary(message: &libc::msghdr) -> Auxiliary {
    // SAFETY: the kernel has filled the control buffer of `message`, which is still alive in the caller.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a whole header within the control buffer.
        let here = unsafe { header.read() };
        if here.cmsg_level == libc::SOL_PACKET && here.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: the data lies behind the header.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: the kernel puts a whole `tpacket_auxdata` there for this type; alignment is not assumed.
            let record = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
            let tagged = record.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            return Auxiliary {
                vlan: tagged.then_some((record.tp_vlan_tpid, record.tp_vlan_tci)),
                checksum_not_ready: record.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0,
            };
        }
        // SAFETY: `header` came from this message.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    Auxiliary::default()
}

/// How often a TCP connection has repeated a segment since it began.
pub(crate) fn tcp_retransmits(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: `tcp_info` is plain old data for which zero is a valid value.
    let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut length = socklen::<libc::tcp_info>();
    let out = ptr::from_mut(&mut info).cast();
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes to `info`.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            out,
            &raw mut length,
        )
    })?;
    Ok(info.tcpi_total_retrans)
}
