//! A socket that sends whole frames out of interfaces, by index, and receives nothing.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Sends frames from the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct FrameSender(OwnedFd);

impl FrameSender {
    /// Opens it in the calling thread's namespace.
    #[expect(unsafe_code, reason = "the address of a packet socket has no safe wrapper")]
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes no pointers. Protocol 0: no frame is ever queued for this socket.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor and nobody else knows its number.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a frame out of interface `index`. On a veth, the other end receives it before the call returns or soon
    /// after.
    #[expect(unsafe_code, reason = "the address of a packet socket has no safe wrapper")]
    pub(crate) fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: a structure of integers, of which zeroes are valid values.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>());
        let length = length.map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `frame` and `address` live through the call and have the lengths that are passed; the kernel only
        // reads them.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                length,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
