//! Deletes groups of interfaces without waiting for what nobody needs.
//!
//! The kernel takes deleted interfaces away at once, and then keeps the caller for a grace period or more (15 ms and up),
//! until nobody can hold a reference to them. The agent's one thread has better things to do: a Request may be next.
//! So the call is made on another thread, and waited for only until the interfaces are gone.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

use crate::netlink::{link, socket::Netlink};

/// Calls that may be waiting in the kernel. One more is made on the caller's thread: should the kernel not let go of
/// interfaces at all, the agent must not make threads without end.
const MAX_WAITING: usize = 8;
/// The first pause before looking whether the interfaces are gone; each next one is twice as long.
const FIRST_LOOK: Duration = Duration::from_micros(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_millis(4);

/// The threads that are waiting. Dropping it waits for them.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    waiting: Vec<JoinHandle<()>>,
}

impl Reaper {
    /// Deletes all interfaces of `group` in the calling thread's namespace, and returns when `member`, the index of one of
    /// them, is gone: they go all at once.
    pub(super) fn delete(&mut self, netlink: &mut Netlink, group: u32, member: u32) -> io::Result<()> {
        self.waiting.retain(|thread| !thread.is_finished());
        if self.waiting.len() >= MAX_WAITING {
            return link::delete_group(netlink, group);
        }
        let (report, result) = mpsc::channel();
        let delete = move || {
            let deleted = Netlink::open().and_then(|mut netlink| link::delete_group(&mut netlink, group));
            // Whoever asked has seen before that they are gone.
            let _ = report.send(deleted);
        };
        let thread = std::thread::Builder::new().name("tl-reaper".to_owned());
        self.waiting.push(thread.spawn(delete)?);
        let mut pause = FIRST_LOOK;
        loop {
            match result.recv_timeout(pause) {
                Ok(deleted) => return deleted,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that deletes interfaces panicked"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let answers = netlink.batch(vec![link::get_at(member)])?;
            for answer in answers {
                if link::found(answer)?.is_none() {
                    return Ok(());
                }
            }
            pause = (2 * pause).min(LONGEST);
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        for thread in self.waiting.drain(..) {
            // One that panicked was reported as a failure.
            let _ = thread.join();
        }
    }
}
