//! A private copy of the programs and maps.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, tc},
};
use dataplane_common::{
    Reason,
    abi::{Event, FlowKey, FlowPin, Generation, Position, Split, WireCounters},
    limits::OWN_INDEX_BASE,
    names,
};

use crate::{context, event};

/// The probe cookie of every copy.
pub const COOKIE: [u8; 8] = *b"tl-test!";

/// The same as the word that the programs compare.
static PROBE_COOKIE: u64 = u64::from_ne_bytes(COOKIE);

/// How many counter slots [`Loaded::counters`] reads.
const SLOTS: u32 = 16;

/// Programs and maps of our own: nothing is pinned, everything goes on drop.
pub struct Loaded {
    ebpf: Ebpf,
    own_positions: Array<MapData, Position>,
    positions: HashMap<MapData, u32, Position>,
    generation: Array<MapData, Generation>,
    wire_counters: PerCpuArray<MapData, WireCounters>,
    reasons: PerCpuArray<MapData, u64>,
    splits: HashMap<MapData, u32, Split>,
    flows: Option<HashMap<MapData, FlowKey, FlowPin>>,
    liveness: Array<MapData, u64>,
    events: RingBuf<MapData>,
}

/// What came of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program's return code.
    pub code: u32,
}

/// Every counter, summed over the processors; zero ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// By slot: frames and octets.
    pub wires: BTreeMap<u32, (u64, u64)>,
}

impl Counters {
    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let reasons = self.reasons.iter().map(|(reason, count)| {
            let earlier = before.reasons.get(reason).copied().unwrap_or(0);
            (*reason, count.wrapping_sub(earlier))
        });
        let wires = self.wires.iter().map(|(slot, (packets, bytes))| {
            let (p, b) = before.wires.get(slot).copied().unwrap_or((0, 0));
            (*slot, (packets.wrapping_sub(p), bytes.wrapping_sub(b)))
        });
        Self {
            reasons: reasons.filter(|(_, count)| *count != 0).collect(),
            wires: wires.filter(|(_, counts)| *counts != (0, 0)).collect(),
        }
    }
}

impl Loaded {
    /// Loads the embedded object; `event_sample` as in [`names::GLOBAL_EVENT_SAMPLE`].
    pub fn new(event_sample: u32) -> Result<Self> {
        Self::load(EbpfLoader::new().override_global(names::GLOBAL_EVENT_SAMPLE, &event_sample, true))
    }

    /// Loads the embedded object with a table of flows that has no room for any. `pin` is a path in a bpffs, for the time
    /// of the call.
    ///
    /// The table proper makes room by forgetting; so another one takes its place, which the programs cannot tell.
    pub fn without_room_for_flows(pin: &Path) -> Result<Self> {
        let mut full = HashMap::<MapData, FlowKey, FlowPin>::create(1, 0)?;
        let never = FlowKey {
            zero: 1,
            ..FlowKey::default()
        };
        full.insert(never, FlowPin::default(), 0)?;
        full.pin(pin)?;
        let loaded = Self::load(EbpfLoader::new().map_pin_path(names::MAP_FLOWS, pin));
        std::fs::remove_file(pin)?;
        loaded
    }

    fn load(loader: &mut EbpfLoader<'_>) -> Result<Self> {
        let mut ebpf = loader
            .override_global(names::GLOBAL_PROBE_COOKIE, &PROBE_COOKIE, true)
            .load(dataplane_user::OBJECT)
            .context("load the kernel programs: this needs CAP_BPF")?;
        program(&mut ebpf)?
            .load()
            .context("the verifier refuses the program")?;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            own_positions: take(names::MAP_OWN_POSITIONS)?.try_into()?,
            positions: take(names::MAP_POSITIONS)?.try_into()?,
            generation: take(names::MAP_GENERATION)?.try_into()?,
            wire_counters: take(names::MAP_WIRE_COUNTERS)?.try_into()?,
            reasons: take(names::MAP_REASONS)?.try_into()?,
            splits: take(names::MAP_SPLITS)?.try_into()?,
            flows: take(names::MAP_FLOWS)?.try_into().ok(),
            liveness: take(names::MAP_LIVENESS)?.try_into()?,
            events: take(names::MAP_EVENTS)?.try_into()?,
            ebpf,
        })
    }

    /// Makes interface `ifindex` a position.
    pub fn set_position(&mut self, ifindex: u32, position: Position) -> Result<()> {
        match ifindex.checked_sub(OWN_INDEX_BASE) {
            Some(key) => Ok(self.own_positions.set(key, position, 0)?),
            None => Ok(self.positions.insert(ifindex, position, 0)?),
        }
    }

    /// Removes a position.
    pub fn remove_position(&mut self, ifindex: u32) -> Result<()> {
        match ifindex.checked_sub(OWN_INDEX_BASE) {
            Some(key) => Ok(self.own_positions.set(key, Position::ABSENT, 0)?),
            None => Ok(self.positions.remove(&ifindex)?),
        }
    }

    /// Sets the node's generation.
    pub fn set_generation(&mut self, generation: Generation) -> Result<()> {
        Ok(self.generation.set(0, generation, 0)?)
    }

    /// Writes split number `number`.
    pub fn set_split(&mut self, number: u32, split: Split) -> Result<()> {
        Ok(self.splits.insert(number, split, 0)?)
    }

    /// Removes split number `number`.
    pub fn remove_split(&mut self, number: u32) -> Result<()> {
        Ok(self.splits.remove(&number)?)
    }

    /// Every flow in the table.
    pub fn flows(&self) -> Result<BTreeMap<FlowKey, FlowPin>> {
        let flows = self.flows.as_ref().context("this copy has no room for flows")?;
        flows.iter().map(|flow| Ok(flow?)).collect()
    }

    /// When a reply to a probe came in at the position with this slot, in nanoseconds of `CLOCK_MONOTONIC`; 0: never.
    pub fn alive(&self, slot: u32) -> Result<u64> {
        Ok(self.liveness.get(&slot, 0)?)
    }

    /// How long `wire_ingress` takes for a frame, on average over `repeat` runs.
    pub fn time(&mut self, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Duration> {
        let context = context::at_interface(ifindex);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        Ok(program(&mut self.ebpf)?.test_run(options)?.duration)
    }

    /// Runs `wire_ingress` on a frame as if it came in at `ifindex` of this thread's namespace.
    pub fn run(&mut self, ifindex: u32, frame: &[u8]) -> Result<Run> {
        let context = context::at_interface(ifindex);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        let result = program(&mut self.ebpf)?
            .test_run(options)
            .with_context(|| format!("run on {} octets at interface {ifindex}", frame.len()))?;
        Ok(Run {
            code: result.return_value,
        })
    }

    /// Attaches `wire_ingress` to an interface of this thread's namespace; it goes with `self`.
    pub fn attach(&mut self, interface: &str) -> Result<()> {
        // Needed below Linux 6.6 and harmless above; it exists already if another program was attached.
        let _ = tc::qdisc_add_clsact(interface);
        program(&mut self.ebpf)?
            .attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("attach to {interface}"))?;
        Ok(())
    }

    /// Every counter now.
    pub fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::default();
        for reason in Reason::ALL {
            let sum: u64 = self.reasons.get(&reason.number(), 0)?.iter().sum();
            if sum != 0 {
                counters.reasons.insert(*reason, sum);
            }
        }
        for slot in 0..SLOTS {
            let per_cpu = self.wire_counters.get(&slot, 0)?;
            let sum = per_cpu
                .iter()
                .fold((0, 0), |(p, b), cpu| (p + cpu.packets, b + cpu.bytes));
            if sum != (0, 0) {
                counters.wires.insert(slot, sum);
            }
        }
        Ok(counters)
    }

    /// The events that were sent since the last call.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            events.push(event::decode(&record)?);
        }
        Ok(events)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let name = names::PROGRAM_WIRE_INGRESS;
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}
