//! What a path costs per packet, without sockets and system calls: frames are injected at the client's interface
//! and counted and dropped at the server's, all on one processor.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use tieline_lab::Mac;

use crate::{
    cpu::{self, Cpu},
    kernel::Kernel,
    path::{End, Path},
    stats, stop,
};

/// Frames per system call: short enough that one preemption spoils one chunk of many, long enough that setting up
/// the call does not count.
const CHUNK: u32 = 80_000;
const FRAME_LEN: usize = 60;
const UDP_OCTETS: u16 = 26;
const IP_OCTETS: u16 = 46;

/// The generator and the sink, loaded once for all paths.
pub(crate) struct FrameMeter {
    kernel: Kernel,
}

impl FrameMeter {
    /// Loads the programs.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            kernel: Kernel::load()?,
        })
    }

    /// Nanoseconds per frame from the client's interface to the server's: the median of `chunks` chunks.
    pub(crate) fn ns_per_packet(&mut self, path: &Path, chunks: u32) -> Result<f64> {
        path.set_polling(true)?;
        let server = &path.server;
        let sink = server.netns.run(|| self.kernel.attach_sink(&server.interface))?;
        let measured = self.measure(path, chunks);
        server.netns.run(|| self.kernel.detach_sink(sink))?;
        path.set_polling(false)?;
        measured.with_context(|| format!("live frames through {}", path.name))
    }

    fn measure(&mut self, path: &Path, chunks: u32) -> Result<f64> {
        let frame = frame(&path.client, &path.server);
        let samples = path.client.netns.run(|| {
            cpu::claim(Cpu::First)?;
            self.chunk(path.client.ifindex, &frame, CHUNK / 4)?;
            (0..chunks)
                .map(|_| self.chunk(path.client.ifindex, &frame, CHUNK))
                .collect::<Result<Vec<_>>>()
        })?;
        stats::median(&samples).context("no chunk was measured")
    }

    fn chunk(&mut self, ifindex: u32, frame: &[u8], count: u32) -> Result<f64> {
        stop::check()?;
        let before = self.kernel.sunk()?;
        let time = self.kernel.generate(ifindex, frame, count)?;
        self.kernel.expect_sunk(before, count)?;
        Ok(time.as_secs_f64() * 1e9)
    }
}

/// A UDP datagram of 18 octets from `client` to `server`: with its headers the smallest Ethernet frame. Its UDP
/// checksum is 0, which means none.
fn frame(client: &End, server: &End) -> [u8; FRAME_LEN] {
    build_frame((client.mac, client.address), (server.mac, server.address))
}

fn build_frame(from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr)) -> [u8; FRAME_LEN] {
    const TTL_AND_UDP: [u8; 2] = [64, 17];
    let mut ip = Vec::with_capacity(20);
    ip.extend([0x45, 0]);
    ip.extend(IP_OCTETS.to_be_bytes());
    ip.extend([0; 4]);
    ip.extend(TTL_AND_UDP);
    ip.extend([0; 2]);
    ip.extend(from.1.octets());
    ip.extend(to.1.octets());
    let sum = ones_complement_sum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut frame = Vec::with_capacity(FRAME_LEN);
    frame.extend(to.0.0);
    frame.extend(from.0.0);
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    frame.extend(4000_u16.to_be_bytes());
    frame.extend(9_u16.to_be_bytes());
    frame.extend(UDP_OCTETS.to_be_bytes());
    let mut whole = [0; FRAME_LEN];
    whole[..frame.len()].copy_from_slice(&frame);
    whole
}

/// The Internet checksum (RFC 1071) of an even number of octets.
fn ones_complement_sum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_a_valid_smallest_datagram() {
        let from = (Mac::numbered(1), Ipv4Addr::new(10, 0, 0, 1));
        let to = (Mac::numbered(2), Ipv4Addr::new(10, 0, 0, 2));
        let frame = build_frame(from, to);
        assert_eq!(frame[..6], Mac::numbered(2).0);
        assert_eq!(frame[12..14], [8, 0]);
        assert_eq!(
            ones_complement_sum(&frame[14..34]),
            0,
            "a header with its checksum sums to all ones"
        );
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), 46);
        assert_eq!(u16::from_be_bytes([frame[38], frame[39]]), 26);
    }
}
