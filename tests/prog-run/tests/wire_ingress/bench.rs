//! Where frames come in.

use tieline_lab::NetNs;

/// A namespace with the interface that frames come in at, its other end, and the one they are redirected to.
pub(crate) struct Bench {
    pub(crate) netns: NetNs,
    /// Holds the outer ends of the two pairs.
    pub(crate) outside: NetNs,
    pub(crate) at: u32,
    pub(crate) to: u32,
}

impl Bench {
    /// With an index of the kernel's choice, as existing interfaces have.
    pub(crate) fn new() -> Self {
        Self::at(None)
    }

    pub(crate) fn at(index: Option<u32>) -> Self {
        let (netns, outside) = (NetNs::new("run").unwrap(), NetNs::new("runout").unwrap());
        for ns in [&netns, &outside] {
            ns.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        for (inner, index, outer) in [("at", index, "at-out"), ("to", None, "to-out")] {
            netns
                .net(|net| net.add_veth_at(inner, index, outer, Some(&outside)))
                .unwrap();
            netns.net(|net| net.set_up(inner)).unwrap();
            outside.net(|net| net.set_up(outer)).unwrap();
        }
        let index = |name| netns.net(|net| Ok(net.link(name)?.ifindex)).unwrap();
        let (at, to) = (index("at"), index("to"));
        Self {
            netns,
            outside,
            at,
            to,
        }
    }

    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> T {
        self.netns.run(work).unwrap()
    }
}
