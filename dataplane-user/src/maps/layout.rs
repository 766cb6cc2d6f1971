//! How the pinned maps must look. aya reuses a pin without comparing, so the comparison is made before.

use std::{fmt, io, os::fd::AsFd as _, path::Path};

use dataplane_common::{
    Reason,
    abi::{FlowKey, FlowPin, Generation, Position, Split, WireCounters},
    limits::{MAX_FLOWS, POSITIONS_PER_WIRE, SPLITS_PER_WIRE},
    names,
};

use crate::sys::bpf;

const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;
const BPF_F_NO_PREALLOC: u32 = 1;

/// One pinned map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    kind: u32,
    key: usize,
    value: usize,
    flags: u32,
    size: Size,
}

/// What decides about the number of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Fixed(u32),
    /// So many for each wire that the node is configured for.
    PerWire(u32),
}

const PER_POSITION: Size = Size::PerWire(POSITIONS_PER_WIRE);
const PER_SPLIT: Size = Size::PerWire(SPLITS_PER_WIRE);

/// Every map that outlives the agent.
pub(crate) const PINNED: [Layout; 8] = [
    Layout {
        name: names::MAP_OWN_POSITIONS,
        kind: BPF_MAP_TYPE_ARRAY,
        key: size_of::<u32>(),
        value: size_of::<Position>(),
        flags: 0,
        size: PER_POSITION,
    },
    Layout {
        name: names::MAP_POSITIONS,
        kind: BPF_MAP_TYPE_HASH,
        key: size_of::<u32>(),
        value: size_of::<Position>(),
        flags: BPF_F_NO_PREALLOC,
        size: PER_POSITION,
    },
    Layout {
        name: names::MAP_GENERATION,
        kind: BPF_MAP_TYPE_ARRAY,
        key: size_of::<u32>(),
        value: size_of::<Generation>(),
        flags: 0,
        size: Size::Fixed(1),
    },
    Layout {
        name: names::MAP_WIRE_COUNTERS,
        kind: BPF_MAP_TYPE_PERCPU_ARRAY,
        key: size_of::<u32>(),
        value: size_of::<WireCounters>(),
        flags: 0,
        size: PER_POSITION,
    },
    Layout {
        name: names::MAP_REASONS,
        kind: BPF_MAP_TYPE_PERCPU_ARRAY,
        key: size_of::<u32>(),
        value: size_of::<u64>(),
        flags: 0,
        size: Size::Fixed(Reason::COUNT),
    },
    Layout {
        name: names::MAP_SPLITS,
        kind: BPF_MAP_TYPE_HASH,
        key: size_of::<u32>(),
        value: size_of::<Split>(),
        flags: BPF_F_NO_PREALLOC,
        size: PER_SPLIT,
    },
    Layout {
        name: names::MAP_FLOWS,
        kind: BPF_MAP_TYPE_LRU_HASH,
        key: size_of::<FlowKey>(),
        value: size_of::<FlowPin>(),
        flags: 0,
        size: Size::Fixed(MAX_FLOWS),
    },
    Layout {
        name: names::MAP_LIVENESS,
        kind: BPF_MAP_TYPE_ARRAY,
        key: size_of::<u32>(),
        value: size_of::<u64>(),
        flags: 0,
        size: PER_POSITION,
    },
];

/// How a pinned map differs from what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Only the configured size differs: it was made for this many wires.
    Size(u32),
    /// Type, key, value, flags or a fixed size differ: not a map of this layout.
    Layout,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(wires) => write!(f, "it was made for {wires} wires"),
            Self::Layout => f.write_str("its type, key, value or flags differ"),
        }
    }
}

impl Layout {
    /// Entries, for a node of `max_wires` wires.
    pub(crate) const fn entries(&self, max_wires: u32) -> u32 {
        match self.size {
            Size::Fixed(entries) => entries,
            Size::PerWire(entries) => max_wires.saturating_mul(entries),
        }
    }

    /// Whether the size follows the configuration.
    pub(crate) fn is_configured(&self) -> bool {
        !matches!(self.size, Size::Fixed(_))
    }

    /// Compares the map that is pinned at `path`; `Ok(None)` when nothing is pinned there.
    pub(crate) fn compare(&self, path: &Path, max_wires: u32) -> io::Result<Option<Result<(), Mismatch>>> {
        let map = match bpf::get_pinned(path) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(found) = bpf::map_layout(map.as_fd()) else {
            return Ok(Some(Err(Mismatch::Layout)));
        };
        let same = found.kind == self.kind
            && found.key_size as usize == self.key
            && found.value_size as usize == self.value
            && found.flags == self.flags;
        let entries = self.entries(max_wires);
        Ok(Some(match (same, found.max_entries == entries, self.size) {
            (true, true, _) => Ok(()),
            (true, false, Size::PerWire(entries)) => Err(Mismatch::Size(found.max_entries / entries)),
            _ => Err(Mismatch::Layout),
        }))
    }
}
