//! Every map, private, behind typed access. Names are those of [`dataplane_common::names`]; sizes that depend
//! on the node's configuration are set by the agent before loading.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use dataplane_common::{
    Reason,
    abi::{Event, FlowKey, FlowPin, Generation, Hop, Position, Split, WireCounters},
    flow::{FlowEntry, FlowTable, Seen},
    limits::{
        DEFAULT_MAX_WIRES, EVENT_RING_BYTES, MAX_FLOWS, OWN_INDEX_BASE, POSITIONS_PER_WIRE, SPLITS_PER_WIRE,
    },
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
static TL_SPLITS: HashMap<u32, Split> =
    HashMap::with_max_entries(DEFAULT_MAX_WIRES * SPLITS_PER_WIRE, BPF_F_NO_PREALLOC);
#[map]
static TL_FLOWS: LruHashMap<FlowKey, FlowPin> = LruHashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
static TL_LIVENESS: Array<u64> = Array::with_max_entries(MAX_POSITIONS, 0);
#[map]
static TL_SCRATCH: PerCpuArray<Seen> = PerCpuArray::with_max_entries(1, 0);
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

/// Split number `split`.
#[inline(always)]
pub(crate) fn split(split: u32) -> Option<&'static Split> {
    // SAFETY: elements are freed a grace period after their removal, and never written again once a position leads to
    // them; the verifier has seen the lookup's null check.
    #[expect(unsafe_code, reason = "map values are shared memory")]
    TL_SPLITS.get_ptr(split).map(|element| unsafe { &*element })
}

/// Where to keep what is read of the packet in work. Not on the stack: the verifier would walk everything behind it once
/// for each combination of values that it knows there.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Seen> {
    TL_SCRATCH.get_ptr_mut(0).map(own_element)
}

/// The table of flows.
pub(crate) struct Flows;

/// A flow in the table. An LRU table may give the element to another flow at any time: then a word is read that is of no
/// branch of this split, or one is written that the other flow loses; either is made good by the next packet.
#[derive(Clone, Copy)]
pub(crate) struct Flow(*mut FlowPin);

impl FlowTable for Flows {
    type Entry = Flow;

    #[inline(always)]
    fn find(&self, key: &FlowKey) -> Option<Flow> {
        TL_FLOWS.get_ptr_mut(key).map(Flow)
    }

    #[inline(always)]
    fn keep(&self, key: &FlowKey, pin: &FlowPin) -> bool {
        TL_FLOWS.insert(key, pin, 0).is_ok()
    }
}

#[expect(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "map values are shared memory"
)]
impl FlowEntry for Flow {
    #[inline(always)]
    fn get(&self) -> FlowPin {
        // SAFETY: the verifier has seen the lookup's null check, and elements of this map are never unmapped; the words
        // are aligned and accept every bit pattern; volatile, because other processors write them meanwhile.
        let (word, seen_ns) = unsafe {
            let words = self.0.cast::<u64>();
            (words.read_volatile(), words.add(1).read_volatile())
        };
        let [branch, state] = halves(word);
        FlowPin {
            branch,
            state,
            seen_ns,
        }
    }

    #[inline(always)]
    fn set_branch(&self, branch: u32, state: u32) {
        let word = (u64::from(state) << 32) | u64::from(branch);
        // SAFETY: as in `get`; one aligned store of the first word.
        unsafe { self.0.cast::<u64>().write_volatile(word.to_le()) }
    }

    #[inline(always)]
    fn set_seen(&self, seen_ns: u64) {
        // SAFETY: as in `get`; one aligned store of the second word.
        unsafe { self.0.cast::<u64>().add(1).write_volatile(seen_ns) }
    }
}

/// The two fields that a word of a little-endian table holds, the first one first.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
const fn halves(word: u64) -> [u32; 2] {
    let word = word.to_le();
    [word as u32, (word >> 32) as u32]
}

/// Notes that a reply to a probe came in at the position with this slot.
#[inline(always)]
pub(crate) fn note_alive(slot: u32) {
    let Some(element) = TL_LIVENESS.get_ptr_mut(slot) else {
        return;
    };
    #[expect(
        unsafe_code,
        clippy::multiple_unsafe_ops_per_block,
        reason = "map values are shared memory"
    )]
    // SAFETY: the verifier has seen the null check; an aligned store, which other processors may do as well.
    unsafe {
        element.write_volatile(bpf_ktime_get_ns());
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, as of the last tick: cheap.
#[inline(always)]
pub(crate) fn now() -> u64 {
    #[expect(unsafe_code, reason = "helper call")]
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe {
        bpf_ktime_get_coarse_ns()
    }
}

/// Room for one event, or `None` when the ring is full.
#[inline(always)]
pub(crate) fn reserve_event() -> Option<aya_ebpf::maps::ring_buf::RingBufEntry<Event>> {
    TL_EVENTS.reserve::<Event>(0)
}
