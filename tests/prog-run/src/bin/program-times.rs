//! Prints how long `wire_ingress` takes for a frame, in nanoseconds: at a plain position, at a probed one, and at a split
//! for a flow that is in the table. Lowest of several rounds, which are interleaved: the machine has other things to do.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use dataplane_common::{
    abi::{Hop, Position, PositionFlags, Split, SplitBranch, SplitFlags},
    limits::OWN_INDEX_BASE,
};
use tieline_lab::{
    Mac, NetNs,
    frame::{Frame, IpPacket, Payload},
};
use tieline_tests_prog_run::Loaded;

const ROUNDS: usize = 15;
const REPEAT: u32 = 200_000;
const SPLIT: u32 = 1;

fn main() -> Result<()> {
    let netns = NetNs::new("times")?;
    let at = OWN_INDEX_BASE;
    netns.net(|net| net.add_veth_at("at", Some(at), "out", None))?;
    let mut loaded = Loaded::new(0)?;
    loaded.set_generation(1)?;
    let (split, frame) = (split(at), frame()?);
    loaded.set_split(SPLIT, split)?;
    let ip = PositionFlags::IP_PAYLOAD;
    let cases = [
        ("plain", Position::starting(1, Hop::peer(at), 1, ip)),
        (
            "probed",
            Position::starting(1, Hop::peer(at), 1, ip.and(PositionFlags::PROBED)),
        ),
        (
            "split, known flow",
            Position::starting(1, Hop::split(SPLIT), 1, ip),
        ),
    ];
    let mut lowest = [u128::MAX; 3];
    for _ in 0..ROUNDS {
        for ((_, position), lowest) in cases.iter().zip(&mut lowest) {
            loaded.set_position(at, *position)?;
            let time = netns.run(|| loaded.time(at, &frame, REPEAT))?;
            *lowest = time.as_nanos().min(*lowest);
        }
    }
    for ((name, _), nanoseconds) in cases.iter().zip(lowest) {
        println!("{name:20} {nanoseconds:4} ns");
    }
    Ok(())
}

fn split(to: u32) -> Split {
    let mut split = Split {
        scope: 1,
        flags: SplitFlags::DECIDES.bits(),
        otherwise: [1; 8],
        ..Split::default()
    };
    for (index, branch) in (0..).zip(&mut split.branches) {
        *branch = SplitBranch {
            hop: Hop::peer(to),
            id: 8 + index,
            slot: 2,
            ..SplitBranch::default()
        };
    }
    split
}

fn frame() -> Result<Vec<u8>> {
    let address = |text: &str| text.parse().context("an address");
    let payload = Payload::Tcp(5000, 80, vec![0; 6]);
    let packet = IpPacket::new(address("10.0.0.1")?, address("10.0.0.2")?, payload);
    Ok(Frame::ip(Mac::numbered(1), Mac::numbered(2), &packet).into_bytes())
}
