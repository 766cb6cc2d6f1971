//! Every map, private, behind typed access. Names are those of [`dataplane_common::names`]; sizes that depend
//! on the node's configuration are set by the agent before loading.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use dataplane_common::{
    Reason,
    abi::{Event, Generation, Hop, Position, WireCounters},
    limits::{DEFAULT_MAX_WIRES, EVENT_RING_BYTES, OWN_INDEX_BASE, POSITIONS_PER_WIRE},
};

const MAX_POSITIONS: u32 = DEFAULT_MAX_WIRES * POSITIONS_PER_WIRE;

#[map]
static TL_OWN_POS: Array<Position> = Array::with_max_entries(MAX_POSITIONS, 0);
#[map]
static TL_POSITIONS: HashMap<u32, Position> = HashMap::with_max_entries(MAX_POSITIONS, BPF_F_NO_PREALLOC);
#[map]
static TL_GENERATION: Array<Generation> = Array::with_max_entries(1, 0);
#[map]
static TL_WIRE_COUNT: PerCpuArray<WireCounters> = PerCpuArray::with_max_entries(MAX_POSITIONS, 0);
#[map]
static TL_REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);
#[map]
static TL_EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_BYTES, 0);

/// An entry of one of the two tables of positions. The agent may write into it while this program runs.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*const Position);

/// The entry at interface `ifindex`. Interfaces that the agent made lie in an array: the lookup is a subtraction and a
/// comparison, where a hash costs a call and about 30 ns.
#[inline(always)]
pub(crate) fn position(ifindex: u32) -> Option<Entry> {
    let element = if ifindex >= OWN_INDEX_BASE {
        TL_OWN_POS.get_ptr(ifindex - OWN_INDEX_BASE)
    } else {
        TL_POSITIONS.get_ptr(ifindex)
    };
    element.map(Entry)
}

impl Entry {
    /// The hop in force at `generation`. The generation's word is read before the hop's: the agent's order of writes
    /// (`Position::writes_in_place`) makes either hop right that can then be read.
    #[inline(always)]
    pub(crate) fn hop_at(self, generation: Generation) -> Hop {
        #[expect(
            unsafe_code,
            clippy::multiple_unsafe_ops_per_block,
            reason = "map values are shared memory"
        )]
        // SAFETY: a pointer into a map element that the lookup's null check made valid for this run: elements of the
        // array stay, and those of the hash are freed a grace period after their removal. The words are aligned and
        // accept every bit pattern; volatile, because the agent may write them meanwhile.
        unsafe {
            let since = (&raw const (*self.0).next_since).read_volatile();
            let hop = if generation >= since {
                &raw const (*self.0).next
            } else {
                &raw const (*self.0).current
            };
            Hop::from_word(hop.cast::<u64>().read_volatile())
        }
    }

    /// Everything but the hops' choice: what stays while an entry is in use.
    #[inline(always)]
    pub(crate) fn get(self) -> &'static Position {
        // SAFETY: as in `hop_at`; the fields that are read through this reference, `slot` and `flags`, are written
        // only before the entry leads anywhere.
        #[expect(unsafe_code, reason = "map values are shared memory")]
        unsafe {
            &*self.0
        }
    }
}

/// The node's generation; 0 before the first plan.
#[inline(always)]
pub(crate) fn generation() -> Generation {
    // Volatile: the agent writes the word while programs run. An aligned 8-byte load does not tear.
    TL_GENERATION.get_ptr(0).map_or(0, |word| {
        // SAFETY: the pointer comes from the map and the verifier has seen its null check.
        #[expect(unsafe_code, reason = "map values are shared memory")]
        unsafe {
            word.read_volatile()
        }
    })
}

/// This CPU's counters in `slot`.
#[inline(always)]
pub(crate) fn wire_counters(slot: u32) -> Option<&'static mut WireCounters> {
    TL_WIRE_COUNT.get_ptr_mut(slot).map(own_element)
}

/// This CPU's count for `reason`.
#[inline(always)]
pub(crate) fn reason_count(reason: Reason) -> Option<&'static mut u64> {
    TL_REASONS.get_ptr_mut(reason.number()).map(own_element)
}

/// The element of a per-CPU array behind the pointer that a lookup gave.
#[inline(always)]
fn own_element<T>(element: *mut T) -> &'static mut T {
    // SAFETY: it is this CPU's own element and the verifier has seen the lookup's null check; a program at these hooks
    // is not interrupted by another run of itself on the same CPU, and each run asks for an element once.
    #[expect(unsafe_code, reason = "map values are shared memory")]
    unsafe {
        &mut *element
    }
}

/// Room for one event, or `None` when the ring is full.
#[inline(always)]
pub(crate) fn reserve_event() -> Option<aya_ebpf::maps::ring_buf::RingBufEntry<Event>> {
    TL_EVENTS.reserve::<Event>(0)
}
