//! The ways a frame can take from a client's namespace to a server's. Each has namespaces of its own and the same
//! veth defaults, so that only what lies between differs.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use tieline_lab::{Link, Mac, NetNs};

use crate::kernel::Kernel;

/// One end of a path.
#[derive(Debug)]
pub(crate) struct End {
    /// Where it lies.
    pub netns: Arc<NetNs>,
    /// The interface there.
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
    /// Its index in its namespace.
    pub ifindex: u32,
}

impl End {
    /// Looks an interface up.
    pub(crate) fn find(netns: &Arc<NetNs>, interface: &str, address: Ipv4Addr) -> Result<Self> {
        let link = netns.net(|net| net.link(interface))?;
        let (netns, interface) = (Arc::clone(netns), interface.to_owned());
        Ok(Self {
            netns,
            interface,
            address,
            mac: link.mac,
            ifindex: link.ifindex,
        })
    }

    /// Sets an interface up with an address of the /24 that both ends share.
    fn configure(netns: &Arc<NetNs>, interface: &str, address: Ipv4Addr) -> Result<Self> {
        netns.net(|net| {
            net.add_address(interface, ipnet::IpNet::new(IpAddr::V4(address), 24)?)?;
            net.set_up(interface)
        })?;
        Self::find(netns, interface, address)
    }
}

/// A way from a client to a server.
pub(crate) struct Path {
    /// Its name in reports.
    pub name: &'static str,
    /// The sending end of every measurement.
    pub client: End,
    /// The receiving end.
    pub server: End,
    /// The interface that takes the client's frames in: the other end of the client's veth.
    entry: (Arc<NetNs>, String),
    /// What else must live as long as the path.
    _guards: Vec<Box<dyn Any + Send + Sync>>,
}

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);

impl Path {
    /// Client and server are the two ends of one veth pair: the least that a packet between namespaces costs.
    pub(crate) fn direct() -> Result<Self> {
        let (client, server) = (Arc::new(NetNs::new("bench-c")?), Arc::new(NetNs::new("bench-s")?));
        client.net(|net| net.add_veth("c0", "s0", Some(&server)))?;
        Self::with_neighbours(Self {
            name: "direct",
            client: End::configure(&client, "c0", CLIENT)?,
            server: End::configure(&server, "s0", SERVER)?,
            entry: (server, "s0".to_owned()),
            _guards: Vec::new(),
        })
    }

    /// Two veth pairs and a Linux bridge between them, without netfilter.
    pub(crate) fn bridge() -> Result<Self> {
        let node = NodeWithEnds::new()?;
        node.netns.net(|net| {
            net.add_bridge("br0")?;
            net.set_master("vc", "br0")?;
            net.set_master("vs", "br0")?;
            net.set_up("br0")
        })?;
        // Where br_netfilter is there it is on by default in a new namespace and would double the cost.
        let netfilter = std::path::Path::new("/proc/sys/net/bridge");
        if netfilter.is_dir() {
            node.netns.sysctl("bridge/bridge-nf-call-iptables", "0")?;
            node.netns.sysctl("bridge/bridge-nf-call-ip6tables", "0")?;
            node.netns.sysctl("bridge/bridge-nf-call-arptables", "0")?;
        }
        node.into_path("bridge", Vec::new())
    }

    /// Two veth pairs and the barest program that forwards between them.
    pub(crate) fn redirect_peer() -> Result<Self> {
        let node = NodeWithEnds::new()?;
        let mut kernel = Kernel::load()?;
        let (vc, vs) = (node.link("vc")?, node.link("vs")?);
        node.netns
            .run(|| kernel.join_bare(("vc", vc.ifindex), ("vs", vs.ifindex)))?;
        node.into_path("redirect_peer", vec![Box::new(kernel)])
    }

    /// A path that something else has laid and keeps; `entry` is the host end of the client's veth.
    pub(crate) fn laid(name: &'static str, [client, server]: [End; 2], entry: (Arc<NetNs>, String)) -> Self {
        Self {
            name,
            client,
            server,
            entry,
            _guards: Vec::new(),
        }
    }

    /// Lets the entry poll, which it must to take in frames that never were socket buffers. Receive offload is what
    /// switches polling on for a veth; single small datagrams are not merged by it. It is the same for every path,
    /// and off for everything else that is measured.
    pub(crate) fn set_polling(&self, on: bool) -> Result<()> {
        let (netns, interface) = &self.entry;
        let status = netns.run(|| {
            let mut ethtool = Command::new("ethtool");
            ethtool.args(["-K", interface, "gro", if on { "on" } else { "off" }]);
            ethtool
                .status()
                .context("run ethtool, of the package of the same name")
        })?;
        if !status.success() {
            bail!("ethtool could not set receive offload of {interface}: {status}");
        }
        Ok(())
    }

    /// Both ends know each other's hardware address, so that no measurement waits for a resolution.
    fn with_neighbours(self) -> Result<Self> {
        for (here, there) in [(&self.client, &self.server), (&self.server, &self.client)] {
            here.netns
                .net(|net| net.add_neighbour(&here.interface, there.address.into(), there.mac))?;
        }
        Ok(self)
    }
}

/// A node's namespace with a veth to a client and one to a server, not yet joined.
struct NodeWithEnds {
    netns: Arc<NetNs>,
    client: End,
    server: End,
}

impl NodeWithEnds {
    fn new() -> Result<Self> {
        let [client, server] = [Arc::new(NetNs::new("bench-c")?), Arc::new(NetNs::new("bench-s")?)];
        let netns = Arc::new(NetNs::new("bench-n")?);
        netns.net(|net| {
            net.add_veth("vc", "c0", Some(&client))?;
            net.add_veth("vs", "s0", Some(&server))?;
            net.set_up("vc")?;
            net.set_up("vs")
        })?;
        let client = End::configure(&client, "c0", CLIENT)?;
        let server = End::configure(&server, "s0", SERVER)?;
        Ok(Self {
            netns,
            client,
            server,
        })
    }

    fn link(&self, name: &str) -> Result<Link> {
        self.netns.net(|net| net.link(name))
    }

    fn into_path(self, name: &'static str, guards: Vec<Box<dyn Any + Send + Sync>>) -> Result<Path> {
        let entry = (self.netns, "vc".to_owned());
        Path::with_neighbours(Path {
            name,
            client: self.client,
            server: self.server,
            entry,
            _guards: guards,
        })
    }
}
