//! The names that maps, programs and pins are found under. They appear nowhere else as literals.

/// Tcx program at the host end of every wire: forwards by position.
pub const PROGRAM_WIRE_INGRESS: &str = "wire_ingress";

/// Every program in the object, for the start-up check.
pub const PROGRAMS: &[&str] = &[PROGRAM_WIRE_INGRESS];

/// Array: index of an interface that the agent made, less [`crate::limits::OWN_INDEX_BASE`] →
/// [`crate::abi::Position`].
pub const MAP_OWN_POSITIONS: &str = "TL_OWN_POS";
/// Hash: index of any other interface → [`crate::abi::Position`].
pub const MAP_POSITIONS: &str = "TL_POSITIONS";
/// Array of one: the node's [`crate::abi::Generation`].
pub const MAP_GENERATION: &str = "TL_GENERATION";
/// Per-CPU array: position slot → [`crate::abi::WireCounters`].
pub const MAP_WIRE_COUNTERS: &str = "TL_WIRE_COUNT";
/// Per-CPU array: reason number → frames (`u64`).
pub const MAP_REASONS: &str = "TL_REASONS";
/// Hash: number of a split → [`crate::abi::Split`].
pub const MAP_SPLITS: &str = "TL_SPLITS";
/// LRU hash: [`crate::abi::FlowKey`] → [`crate::abi::FlowPin`].
pub const MAP_FLOWS: &str = "TL_FLOWS";
/// Array: position slot → when a reply to a probe came in there (`u64`, `CLOCK_MONOTONIC` nanoseconds); 0: never since the position has the slot.
pub const MAP_LIVENESS: &str = "TL_LIVENESS";
/// Per-CPU array of one: what was read of the packet in work ([`crate::flow::Seen`]). Of no use to anybody else.
pub const MAP_SCRATCH: &str = "TL_SCRATCH";
/// Ring buffer of [`crate::abi::Event`].
pub const MAP_EVENTS: &str = "TL_EVENTS";

/// Maps that outlive the agent: pinned by name below the versioned pin path.
pub const PINNED_MAPS: &[&str] = &[
    MAP_OWN_POSITIONS,
    MAP_POSITIONS,
    MAP_GENERATION,
    MAP_WIRE_COUNTERS,
    MAP_REASONS,
    MAP_SPLITS,
    MAP_FLOWS,
    MAP_LIVENESS,
];

/// Every map in the object, for the start-up check and `docs/maps.md`.
pub const MAPS: &[&str] = &[
    MAP_OWN_POSITIONS,
    MAP_POSITIONS,
    MAP_GENERATION,
    MAP_WIRE_COUNTERS,
    MAP_REASONS,
    MAP_SPLITS,
    MAP_FLOWS,
    MAP_LIVENESS,
    MAP_SCRATCH,
    MAP_EVENTS,
];

/// Load-time constant (`u32`): send an event for each drop and each n-th forwarded frame; 0 sends none and
/// removes the code.
pub const GLOBAL_EVENT_SAMPLE: &str = "TL_EVENT_SAMPLE";

/// Load-time constant (`u64`): the first octets of the data of the node's probes, in memory order; 0: the node does not
/// probe, and the code is removed.
pub const GLOBAL_PROBE_COOKIE: &str = "TL_PROBE_COOKIE";

/// The folder below the bpffs mount that holds the pins of all ABI versions.
pub const PIN_ROOT: &str = "tieline";
/// Folder for pinned links, below the versioned folder. A link's file is named after its interface.
pub const PIN_LINKS: &str = "links";
/// Folder for pinned programs, below the versioned folder.
pub const PIN_PROGRAMS: &str = "programs";
/// Folder for pinned maps, below the versioned folder.
pub const PIN_MAPS: &str = "maps";
