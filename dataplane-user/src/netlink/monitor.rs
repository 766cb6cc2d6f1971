//! Hears when interfaces of the agent's namespace go away: the other end's namespace died, or somebody deleted one.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread::JoinHandle,
};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};

use socket2::{SockFilter, SockRef};

use super::socket::messages;

/// `1 << (RTNLGRP_LINK - 1)`.
const GROUP_LINK: u32 = 1;
/// Room for the notices of some thousands of interfaces that go at once.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// What the monitor heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNotice {
    /// These interfaces are gone: hand their indexes to `Reconciler::interfaces_lost`.
    Gone(Vec<u32>),
    /// More happened than the kernel could tell: make a full pass.
    Overrun,
}

/// A thread that listens until this is dropped.
#[derive(Debug)]
pub struct LinkMonitor {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl LinkMonitor {
    /// Listens in the calling thread's namespace and hands every notice to `notify`, on a thread of its own. A
    /// `notify` that is slow loses nothing: the kernel queues, and says so when it could not.
    pub fn spawn(notify: impl FnMut(LinkNotice) + Send + 'static) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        setsockopt(&socket, RcvBufForce, &QUEUE_BYTES)?;
        SockRef::from(&socket).attach_filter(&only_gone())?;
        socket.bind(&SocketAddr::new(0, GROUP_LINK))?;
        socket.set_non_blocking(true)?;
        let (stopped, stop) = nix::unistd::pipe()?;
        let listen = move || listen(&socket, &stopped, notify);
        let thread = std::thread::Builder::new()
            .name("link-monitor".to_owned())
            .spawn(listen)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// A socket filter that lets through what tells of interfaces that are gone. The kernel also tells of everything that
/// happens while one is made, several times, and wakes whoever listens, while it holds its network lock.
fn only_gone() -> [SockFilter; 4] {
    /// Where a message's type is, see `nlmsghdr`.
    const TYPE: u32 = 4;
    let instruction = |code: u32, jt, jf, k| {
        // Codes are 16 bits wide and declared as 32.
        SockFilter::new(u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k)
    };
    // The filter reads in network order what the kernel wrote in its own.
    let gone = u32::from(libc::RTM_DELLINK.to_be());
    [
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, TYPE),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, gone),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

impl Drop for LinkMonitor {
    fn drop(&mut self) {
        // Closing the pipe's end ends the thread.
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(socket: &Socket, stopped: &OwnedFd, mut notify: impl FnMut(LinkNotice)) {
    loop {
        let mut ready = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => {
                tracing::error!(%error, "the link monitor stopped; lost interfaces are noticed by the next full pass");
                return;
            }
        }
        let [_, stop] = &ready;
        if stop.revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        drain(socket, &mut notify);
    }
}

/// Reads all that is queued and reports it as one notice.
fn drain(socket: &Socket, notify: &mut impl FnMut(LinkNotice)) {
    let mut gone = Vec::new();
    let mut datagram = Vec::with_capacity(64 * 1024);
    loop {
        datagram.clear();
        match socket.recv(&mut datagram, 0) {
            Ok(_) => {
                let _ = messages(&datagram, &mut |_, payload| {
                    if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) = payload {
                        gone.push(link.header.index);
                    }
                    Ok(())
                });
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => notify(LinkNotice::Overrun),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if !gone.is_empty() {
        notify(LinkNotice::Gone(gone));
    }
}
