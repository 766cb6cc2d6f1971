//! The real kernel: netlink, maps and attachments behind [`Datapath`].

mod create;
mod delete;
mod indexes;
mod inside;
mod look;
mod policies;
mod probe;
mod reaper;
mod survey;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use dataplane_common::{
    Reason,
    abi::{FlowKey, FlowPin, Generation, Position, Split, WireCounters},
};

use self::{indexes::Indexes, reaper::Reaper, survey::Walk};
use crate::{
    datapath::{Datapath, Description, ObserveError, OpError, Results},
    desired::{IfName, NetnsId, NetnsRef},
    liveness::{Notice, Prober, Stats, Timing, WatchChange},
    loader::{Config, LoadError, Loaded, load},
    maps::EventReader,
    netlink::{link, socket::Netlink},
    netns,
    observed::{Observed, Scope, Survey},
    op::{InnerChange, NewEnd, Settle},
    ownership::{Managed, NodeScope},
    sys::grace,
};

/// This machine's kernel, in the network namespace of the thread that opened it; it must be used on threads of the
/// same namespace.
pub struct Kernel {
    scope: NodeScope,
    max_wires: u32,
    own: NetnsId,
    netlink: Netlink,
    loaded: Loaded,
    indexes: Indexes,
    /// The group that interfaces are deleted in, once one was found.
    group: Option<u32>,
    reaper: Reaper,
    /// The survey that is under way.
    walk: Option<Walk>,
    /// Workloads' ends that were made in this pass, by host end: their indexes in their namespaces.
    fresh: BTreeMap<IfName, u32>,
    /// Host ends that were made in this pass with the program attached already.
    joined: BTreeSet<u32>,
    /// Whether policies may be left anywhere on the machine, from before this agent was started.
    strays_anywhere: bool,
    /// Watches what wires lead to, if it was asked for.
    prober: Option<Prober>,
}

impl Kernel {
    /// Loads the programs, or adopts those of an earlier agent. What forwards goes on forwarding.
    pub fn open(config: &Config) -> Result<Self, LoadError> {
        let own = netns::current()
            .map_err(LoadError::doing("find the agent's network namespace"))?
            .id;
        let mut netlink = Netlink::open().map_err(LoadError::doing("open a netlink socket"))?;
        let loaded = load(config, &mut netlink)?;
        Ok(Self {
            scope: NodeScope::new(&config.node),
            max_wires: config.max_wires,
            own,
            netlink,
            loaded,
            indexes: Indexes::new(config.max_wires, []),
            group: None,
            reaper: Reaper::default(),
            walk: None,
            fresh: BTreeMap::new(),
            joined: BTreeSet::new(),
            strays_anywhere: true,
            prober: None,
        })
    }

    /// Watches from here on whether what wires lead to is alive, in the calling thread's namespace; `tell` is called on a
    /// thread of its own, which ends with this.
    pub fn watch_paths(
        &mut self,
        timing: Timing,
        tell: impl FnMut(Vec<Notice>) + Send + 'static,
    ) -> io::Result<Arc<Stats>> {
        let Loaded {
            liveness, counters, ..
        } = &self.loaded;
        let senses = probe::KernelSenses::new(liveness.try_clone()?, counters.try_clone()?)?;
        let prober = Prober::spawn(senses, timing, tell)?;
        let stats = prober.stats();
        self.prober = Some(prober);
        Ok(stats)
    }

    /// The reader of sampled events; the first call takes it.
    pub const fn take_events(&mut self) -> Option<EventReader> {
        self.loaded.events.take()
    }

    /// Takes everything away: call it when no wire is left, so that nothing of the agent remains on the machine.
    pub fn remove_pins(self) -> io::Result<()> {
        let root = self.loaded.pins.root().to_owned();
        std::fs::remove_dir_all(&root)?;
        match root.parent() {
            // Pins of another ABI version keep the folder.
            Some(parent) => std::fs::remove_dir(parent).or_else(|error| match error.kind() {
                io::ErrorKind::DirectoryNotEmpty => Ok(()),
                _ => Err(error),
            }),
            None => Ok(()),
        }
    }
}

fn results(results: Vec<io::Result<()>>, what: impl Fn(usize) -> String) -> Results<()> {
    let one = |(i, result): (usize, io::Result<()>)| {
        result.map_err(|error| OpError::kernel(format!("cannot {}: {error}", what(i))))
    };
    results.into_iter().enumerate().map(one).collect()
}

fn unreadable(what: &'static str) -> impl Fn(io::Error) -> ObserveError {
    move |source| ObserveError { what, source }
}

impl Datapath for Kernel {
    fn description(&self) -> Description {
        Description {
            attach_backend: self.loaded.attachments.name(),
            pin_path: self.loaded.pins.root().display().to_string(),
            kernel_release: self.loaded.release.clone(),
            max_wires: self.max_wires,
        }
    }

    fn scope(&self) -> &NodeScope {
        &self.scope
    }

    fn observe(&mut self, scope: &Scope<'_>) -> Result<Observed, ObserveError> {
        // A pass that failed may have left some.
        self.fresh.clear();
        self.joined.clear();
        self.look(scope)
    }

    fn survey(&mut self) -> Result<Option<Survey>, ObserveError> {
        self.survey_part()
    }

    fn create(&mut self, ends: &[&NewEnd]) -> Results<u32> {
        self.create_pairs(ends)
    }

    fn settle(&mut self, ends: &[&Settle]) -> Results<()> {
        let groups = ends.iter().map(|end| link::settle(&end.link, end.mtu)).collect();
        let answers = match self.netlink.groups(groups) {
            Ok(answers) => answers,
            Err(error) => {
                return vec![Err(OpError::kernel(format!("cannot settle host ends: {error}"))); ends.len()];
            }
        };
        let whole = |answers: Vec<io::Result<_>>| answers.into_iter().try_for_each(|answer| answer.map(drop));
        let each = answers.into_iter().map(whole).collect();
        results(each, |i| {
            format!(
                "settle {}",
                ends.get(i).map_or("?", |end| end.link.name().as_str())
            )
        })
    }

    fn configure(&mut self, changes: &[&InnerChange]) -> Results<()> {
        self.configure_inside(changes)
    }

    fn zero_counters(&mut self, slots: &[u32]) -> Result<(), OpError> {
        let zeroed = self.loaded.counters.zero(slots);
        zeroed
            .map_err(|error| OpError::kernel(format!("cannot set {} counters to zero: {error}", slots.len())))
    }

    fn write_positions(&mut self, entries: &[(u32, Position)]) -> Results<()> {
        let written = self.loaded.positions.put(entries);
        results(written, |i| {
            format!(
                "write the position of interface {}",
                entries.get(i).map_or(0, |entry| entry.0)
            )
        })
    }

    fn delete_positions(&mut self, indexes: &[u32]) -> Results<()> {
        let removed = self.loaded.positions.remove(indexes);
        results(removed, |i| {
            format!(
                "remove the position of interface {}",
                indexes.get(i).copied().unwrap_or(0)
            )
        })
    }

    fn split(&self, number: u32) -> Result<Option<Split>, ObserveError> {
        self.loaded.splits.get(number).map_err(unreadable("splits"))
    }

    fn write_splits(&mut self, splits: &[(u32, Split)]) -> Results<()> {
        let put = |(number, split): &(u32, Split)| self.loaded.splits.put(*number, *split);
        let written = splits.iter().map(put).collect();
        results(written, |i| {
            format!("write split {}", splits.get(i).map_or(0, |split| split.0))
        })
    }

    fn delete_splits(&mut self, numbers: &[u32]) -> Results<()> {
        // A program that still reads one would read whatever comes into its place.
        grace::wait_for_readers();
        let remove = |number: &u32| self.loaded.splits.remove(*number);
        let removed = numbers.iter().map(remove).collect();
        results(removed, |i| {
            format!("remove split {}", numbers.get(i).copied().unwrap_or(0))
        })
    }

    fn count_flows(
        &self,
        counts: &dyn Fn(&FlowKey, &FlowPin) -> bool,
    ) -> Result<BTreeMap<(u64, u32), u32>, ObserveError> {
        let counted = self.loaded.flows.count(counts);
        counted.map_err(unreadable("the table of flows"))
    }

    fn watch(&mut self, changes: Vec<WatchChange>) {
        if let Some(prober) = &self.prober {
            prober.change(changes);
        }
    }

    fn now_ns(&self) -> u64 {
        grace::monotonic_ns()
    }

    fn set_generation(&mut self, generation: Generation) -> Result<(), OpError> {
        let set = self.loaded.generation.set(generation);
        set.map_err(|error| OpError::kernel(format!("cannot write generation {generation}: {error}")))
    }

    fn attach(&mut self, interfaces: &[(&IfName, u32)]) -> Results<()> {
        let Loaded {
            attachments, program, ..
        } = &self.loaded;
        let rest: Vec<(&IfName, u32)> = interfaces
            .iter()
            .filter(|(_, index)| !self.joined.contains(index))
            .copied()
            .collect();
        let mut attached = attachments.attach(&mut self.netlink, program, &rest).into_iter();
        let one = |(name, index): &(&IfName, u32)| {
            if self.joined.remove(index) {
                return Ok(());
            }
            let missing = || Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            let attached = attached.next().unwrap_or_else(missing);
            attached.map_err(|error| OpError::kernel(format!("cannot attach to {name}: {error}")))
        };
        interfaces.iter().map(one).collect()
    }

    fn promote(&mut self, interfaces: &[(&IfName, u32)]) -> Results<bool> {
        let Loaded {
            attachments, program, ..
        } = &self.loaded;
        let one = |(result, (name, _)): (io::Result<bool>, &(&IfName, u32))| {
            result.map_err(|error| OpError::kernel(format!("cannot attach a tcx link to {name}: {error}")))
        };
        let promoted = attachments.promote(program, interfaces);
        promoted.into_iter().zip(interfaces).map(one).collect()
    }

    fn detach(&mut self, interfaces: &[&IfName]) -> Results<()> {
        let detached = self.loaded.attachments.detach(&mut self.netlink, interfaces);
        results(detached, |i| {
            format!(
                "detach from {}",
                interfaces.get(i).map_or("?", |name| name.as_str())
            )
        })
    }

    fn delete(&mut self, links: &[&Managed]) -> Results<()> {
        self.delete_links(links)
    }

    fn sweep(&mut self, namespaces: &[&NetnsRef]) -> Results<()> {
        self.sweep_policies(namespaces)
    }

    fn counters(&self, slots: &[u32]) -> Result<Vec<WireCounters>, ObserveError> {
        self.loaded
            .counters
            .read(slots)
            .map_err(unreadable("the wires' counters"))
    }

    fn reasons(&self) -> Result<Vec<(Reason, u64)>, ObserveError> {
        self.loaded
            .reasons
            .read()
            .map_err(unreadable("the reasons' counters"))
    }
}
