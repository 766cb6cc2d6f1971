//! Probing on this machine: frames by a packet socket, answers and counters out of the maps.

use std::io;

use crate::{
    liveness::{Sense, Senses},
    maps::{Counters, Liveness},
    sys::{grace::monotonic_ns, packet::FrameSender},
};

/// What the prober's thread has of its own: it waits for nobody.
pub(super) struct KernelSenses {
    liveness: Liveness,
    counters: Counters,
    sender: FrameSender,
}

impl KernelSenses {
    /// In the calling thread's namespace.
    pub(super) fn new(liveness: Liveness, counters: Counters) -> io::Result<Self> {
        Ok(Self {
            liveness,
            counters,
            sender: FrameSender::open()?,
        })
    }
}

impl Senses for KernelSenses {
    fn sense(&mut self, slot: u32) -> io::Result<Sense> {
        let counted = self.counters.read(&[slot])?;
        Ok(Sense {
            reply_ns: self.liveness.read(slot)?,
            packets: counted.first().map_or(0, |counters| counters.packets),
        })
    }

    fn forget(&mut self, slot: u32) -> io::Result<()> {
        self.liveness.clear(slot)
    }

    fn send(&mut self, index: u32, frame: &[u8]) -> io::Result<()> {
        self.sender.send(index, frame)
    }

    fn now(&self) -> u64 {
        monotonic_ns()
    }
}
