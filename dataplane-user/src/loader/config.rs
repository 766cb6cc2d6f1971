//! What the loader is told, and what it may refuse.

use std::{io, path::PathBuf};

use dataplane_common::limits::{DEFAULT_MAX_WIRES, MAX_WIRES};

use crate::ownership::NodeScope;

/// How programs are attached to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A shared block of clsact filters for host ends; for other interfaces, tcx links on Linux 6.6 and later, and
    /// clsact filters below.
    #[default]
    Auto,
    /// Tcx links everywhere: the least per packet, but a wire takes 30 ms to attach, and as long to go.
    Tcx,
    /// No tcx: a shared block for host ends, clsact filters for other interfaces.
    Clsact,
}

/// What the datapath needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name: part of every mark.
    pub node: String,
    /// The mount point of the bpffs.
    pub bpffs: PathBuf,
    /// How many wires the tables hold.
    pub max_wires: u32,
    /// Send an event for each drop and each n-th forwarded frame; 0: none.
    pub event_sample: u32,
    /// How programs are attached.
    pub backend: Backend,
    /// Whether positions can take replies to probes; without, they pass as any other packet.
    pub probe: bool,
}

/// What the programs are told before they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constants {
    /// As in [`names::GLOBAL_EVENT_SAMPLE`](dataplane_common::names::GLOBAL_EVENT_SAMPLE).
    pub(crate) event_sample: u32,
    /// As in [`names::GLOBAL_PROBE_COOKIE`](dataplane_common::names::GLOBAL_PROBE_COOKIE).
    pub(crate) probe_cookie: u64,
}

impl Config {
    /// The defaults for a node.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            max_wires: DEFAULT_MAX_WIRES,
            event_sample: 0,
            backend: Backend::Auto,
            probe: true,
        }
    }

    /// What the programs are told: the same after every start, for else every start would replace them.
    pub(crate) fn constants(&self) -> Constants {
        Constants {
            event_sample: self.event_sample,
            probe_cookie: if self.probe {
                NodeScope::new(&self.node).cookie()
            } else {
                0
            },
        }
    }
}

/// Why the datapath does not start. Nothing that forwards has been touched.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Rights are missing.
    #[error(
        "the agent lacks {missing}; run it as root, or give its unit AmbientCapabilities=CAP_SYS_ADMIN CAP_NET_ADMIN CAP_BPF"
    )]
    Rights {
        /// Which capabilities.
        missing: String,
    },
    /// The kernel is too old.
    #[error(
        "Linux {release} is too old: Tieline needs 5.15 for clsact filters, or 6.6 for tcx; upgrade the kernel"
    )]
    OldKernel {
        /// As in `uname -r`.
        release: String,
    },
    /// Tcx was asked for on a kernel without it.
    #[error(
        "Linux {release} has no tcx: it came with 6.6; start the agent with --attach=clsact or --attach=auto"
    )]
    NoTcx {
        /// As in `uname -r`.
        release: String,
    },
    /// No bpffs where the pins shall be.
    #[error("{path} is not a bpffs; mount one: mount -t bpf bpf {path}")]
    NoBpffs {
        /// Where.
        path: PathBuf,
    },
    /// Another agent has these pins.
    #[error(
        "another agent uses the pins below {path}; stop it, or give this one another bpffs mount with --bpffs"
    )]
    SecondInstance {
        /// Which pins.
        path: PathBuf,
    },
    /// The configured size is out of bounds.
    #[error("max_wires is {value}; it must be from 1 to {MAX_WIRES}")]
    MaxWires {
        /// As configured.
        value: u32,
    },
    /// The tables have another size, and carry wires.
    #[error(
        "the tables below {path} hold {pinned} wires and are in use, but {wanted} are configured; start with \
         --max-wires={pinned}, or close all wires first"
    )]
    TableSize {
        /// Which pins.
        path: PathBuf,
        /// Their size, in wires.
        pinned: u32,
        /// The configured size, in wires.
        wanted: u32,
    },
    /// A pin is not what its name says.
    #[error(
        "the pin {path} is not the map of that name ({detail}); if nothing uses it, delete it and start again"
    )]
    ForeignPin {
        /// Which pin.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The embedded object is not the one that this agent was made for.
    #[error(
        "the embedded kernel object has {what} {found:?}, expected {expected:?}; rebuild the agent from one source tree"
    )]
    Object {
        /// Programs or maps.
        what: &'static str,
        /// What is in the object.
        found: Vec<String>,
        /// What should be.
        expected: Vec<String>,
    },
    /// aya or the verifier refused the object.
    #[error(
        "the kernel refused the programs: {detail}; run `tieline check`, and report it with the kernel's release"
    )]
    Refused {
        /// All that is known, the verifier's log included.
        detail: String,
    },
    /// Something else the kernel refused.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LoadError {
    /// Says what was tried.
    pub(crate) fn doing(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel {
            action: action.into(),
            source,
        }
    }
}
