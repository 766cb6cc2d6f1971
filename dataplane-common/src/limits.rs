//! Every size, with its unit. Map sizes are defaults: the agent may ask for others before loading.

/// Wires one node holds by default. Each takes two positions.
pub const DEFAULT_MAX_WIRES: u32 = 16_384;
/// The most wires a node may be configured for.
pub const MAX_WIRES: u32 = 262_144;
/// Positions per wire: one at each end.
pub const POSITIONS_PER_WIRE: u32 = 2;
/// Splits per wire that the table has room for, on average over all wires. Room costs memory only where it is used.
pub const SPLITS_PER_WIRE: u32 = 2;
/// Flows of split wires that a node remembers. Beyond it, the one that was seen least recently is forgotten.
pub const MAX_FLOWS: u32 = 65_536;
/// The agent gives the interfaces that it makes indexes from here on, so that the kernel programs find their positions
/// by subtraction instead of a hash. The kernel's own choice counts up from 1 and does not come here.
pub const OWN_INDEX_BASE: u32 = 0x4000_0000;
/// Size of the event ring in bytes: a power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: u32 = 256 * 1024;
/// The longest interface name in bytes (`IFNAMSIZ` less the terminating zero).
pub const MAX_IFNAME_LEN: usize = 15;
/// The longest interface alias that the kernel keeps, in bytes (`IFALIASZ` less the terminating zero).
pub const MAX_IFALIAS_LEN: usize = 255;
/// The smallest MTU a wire may have: IPv6 needs it (RFC 8200 §5).
pub const MIN_MTU: u32 = 1280;
/// The largest MTU a veth takes.
pub const MAX_MTU: u32 = 65_535;
/// The MTU of a wire when nobody asks for another.
pub const DEFAULT_MTU: u32 = 1500;

const _: () = assert!(EVENT_RING_BYTES.is_power_of_two() && EVENT_RING_BYTES.is_multiple_of(4096));
const _: () = assert!(DEFAULT_MAX_WIRES <= MAX_WIRES);
// An interface index is a positive `int` to the kernel.
const _: () = assert!(OWN_INDEX_BASE + MAX_WIRES * POSITIONS_PER_WIRE <= i32::MAX as u32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{FlowKey, FlowPin, Position, WireCounters};

    /// Kernel memory of one hash element besides key and value (`struct htab_elem`), in bytes.
    const HASH_ELEMENT_OVERHEAD: usize = 48;

    #[test]
    fn the_default_tables_stay_below_five_mebibytes_on_two_processors() {
        let positions = usize::try_from(DEFAULT_MAX_WIRES * POSITIONS_PER_WIRE).unwrap();
        let liveness = size_of::<u64>();
        let per_position =
            HASH_ELEMENT_OVERHEAD + 8 + size_of::<Position>() + 2 * size_of::<WireCounters>() + liveness;
        assert!(
            positions * per_position < 5 * 1024 * 1024,
            "{}",
            positions * per_position
        );
    }
    #[test]
    fn the_table_of_flows_stays_below_eight_mebibytes() {
        let flow = HASH_ELEMENT_OVERHEAD + size_of::<FlowKey>() + size_of::<FlowPin>();
        assert!(usize::try_from(MAX_FLOWS).unwrap() * flow < 8 * 1024 * 1024);
    }
}
