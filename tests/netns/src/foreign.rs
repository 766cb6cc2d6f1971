//! What belongs to somebody else on the same node.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::PerCpuArray,
    programs::{
        ProgramInfo, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, SchedClassifierLink},
    },
};
use dataplane_common::{Reason, names};
use tieline_lab::{FrameSocket, Link, Mac, Net, NetNs, frame::Frame, within};

use crate::Node;

/// Name of the foreign interface in the node's namespace: of the form of the agent's own.
const INTERFACE: &str = "tl0123456789ab";
/// Name of another one, which carries a copy of the agent's mark.
const MARKED: &str = "copied-mark";
/// Name of its other end.
const PEER: &str = "peer";
const ALIAS: &str = "belongs to somebody else";

/// An interface with an address, a kernel program on it, and pins below the same bpffs, none of which is Tieline's.
pub struct Foreign {
    /// Holds the program's maps and, where links cannot be pinned, its attachment.
    ebpf: Ebpf,
    program_id: u32,
    attached: Vec<String>,
    pins: BTreeSet<PathBuf>,
    links: [Link; 2],
    /// Holds the other end of the interface.
    peer: NetNs,
}

impl Foreign {
    /// Plants it on the node, and the program on `also` too: interfaces of the node that Tieline will use.
    pub fn plant(node: &Node, also: &[&str]) -> Result<Self> {
        let peer = NetNs::new("foreign")?;
        let links = node.netns().net(|net| {
            net.add_bridge(MARKED)?;
            net.set_alias(MARKED, &format!("tieline/1/{}/somebody/c", node.name()))?;
            net.add_veth(INTERFACE, PEER, Some(&peer))?;
            net.set_mac(INTERFACE, Mac::numbered(0xf0))?;
            net.set_alias(INTERFACE, ALIAS)?;
            net.add_address(INTERFACE, "192.0.2.1/24".parse()?)?;
            net.set_up(INTERFACE)?;
            Ok([net.link(INTERFACE)?, net.link(MARKED)?])
        })?;
        peer.net(|net| net.set_up(PEER))?;
        let folder = node.bpffs().path().join("foreign");
        std::fs::create_dir(&folder)?;
        let mut ebpf = EbpfLoader::new()
            .load(dataplane_user::OBJECT)
            .context("load a foreign program")?;
        ebpf.map_mut(names::MAP_POSITIONS)
            .context("no such map")?
            .pin(folder.join("map"))?;
        let program = program(&mut ebpf)?;
        program.load()?;
        program.pin(folder.join("program"))?;
        let program_id = program.info()?.id();
        let attached: Vec<String> = [&[INTERFACE], also]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect();
        for interface in &attached {
            node.netns()
                .run(|| attach(program, interface, &folder.join(format!("link-{interface}"))))?;
        }
        let pins = foreign_pins(node)?;
        Ok(Self {
            ebpf,
            program_id,
            attached,
            pins,
            links,
            peer,
        })
    }

    /// Fails unless all of it is as it was planted, and its program runs.
    pub fn assert_untouched(&self, node: &Node) -> Result<()> {
        ensure!(
            foreign_pins(node)? == self.pins,
            "foreign pins: {:?}",
            foreign_pins(node)?
        );
        let links = node
            .netns()
            .net(|net| Ok([net.link(INTERFACE)?, net.link(MARKED)?]))?;
        ensure!(
            links == self.links,
            "the foreign interfaces are {links:?}, were {:?}",
            self.links
        );
        let addresses = node.netns().net(|net: &mut Net| net.addresses(INTERFACE))?;
        ensure!(
            addresses == ["192.0.2.1/24".parse()?],
            "the foreign interface has {addresses:?}"
        );
        for interface in self.attached.iter().filter(|_| has_tcx()) {
            let query = || Ok(SchedClassifier::query_tcx(interface, TcAttachType::Ingress)?);
            let (_, programs) = node.netns().run(query)?;
            let ids: Vec<u32> = programs.iter().map(ProgramInfo::id).collect();
            ensure!(
                ids.contains(&self.program_id),
                "the foreign program is gone from {interface}: {ids:?}"
            );
        }
        let before = self.seen()?;
        let frame = Frame::ethernet(Mac::numbered(1), Mac::BROADCAST, 0x88b5, b"foreign").into_bytes();
        FrameSocket::open(&self.peer, PEER)?.send(&frame)?;
        within(Duration::from_secs(2), "the foreign program to run", || {
            Ok((self.seen()? > before).then_some(()))
        })
    }

    /// How many frames the foreign program has seen: it has no positions, so it counts each as unwired.
    fn seen(&self) -> Result<u64> {
        let map = self.ebpf.map(names::MAP_REASONS).context("no such map")?;
        let counts: PerCpuArray<_, u64> = map.try_into()?;
        Ok(counts.get(&Reason::Unwired.number(), 0)?.iter().sum())
    }
}

fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let name = names::PROGRAM_WIRE_INGRESS;
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

fn attach(program: &mut SchedClassifier, interface: &str, pin: &std::path::Path) -> Result<()> {
    if !has_tcx() {
        tc::qdisc_add_clsact(interface)?;
    }
    let id = program.attach(interface, TcAttachType::Ingress)?;
    if has_tcx() {
        let link: SchedClassifierLink = program.take_link(id)?;
        FdLink::try_from(link)?.pin(pin)?;
    }
    Ok(())
}

fn foreign_pins(node: &Node) -> Result<BTreeSet<PathBuf>> {
    Ok(node
        .bpffs()
        .pins()?
        .into_iter()
        .filter(|pin| !pin.starts_with(names::PIN_ROOT))
        .collect())
}
