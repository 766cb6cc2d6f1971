//! The object inside the agent: checked, loaded into pinned maps, and put under everything that is attached.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo, RingBuf},
    programs::{ProgramInfo, SchedClassifier},
};
use dataplane_common::{
    limits::{MAX_WIRES, POSITIONS_PER_WIRE},
    names,
};

use super::{
    Config, LoadError,
    attachments::Attachments,
    pins::{Pins, remove},
    preflight,
};
use crate::{
    maps::{
        Counters, EventReader, Flows, GenerationWord, Layout, Liveness, Mismatch, PINNED, Positions, Reasons,
        Splits, possible_cpus,
    },
    netlink::socket::Netlink,
    sys::bpf,
};

/// Everything that is in the kernel.
pub(crate) struct Loaded {
    pub(crate) pins: Pins,
    pub(crate) release: String,
    pub(crate) program: OwnedFd,
    pub(crate) attachments: Attachments,
    pub(crate) positions: Positions,
    pub(crate) generation: GenerationWord,
    pub(crate) counters: Counters,
    pub(crate) reasons: Reasons,
    pub(crate) splits: Splits,
    pub(crate) flows: Flows,
    pub(crate) liveness: Liveness,
    pub(crate) events: Option<EventReader>,
    #[cfg(feature = "trace")]
    #[expect(dead_code, reason = "reading ends with it")]
    trace: Option<super::trace::Trace>,
}

/// Checks the machine, and loads.
pub(crate) fn load(config: &Config, netlink: &mut Netlink) -> Result<Loaded, LoadError> {
    if !(1..=MAX_WIRES).contains(&config.max_wires) {
        return Err(LoadError::MaxWires {
            value: config.max_wires,
        });
    }
    let (release, backend) = preflight::check(&config.bpffs, config.backend)?;
    let pins = Pins::open(&config.bpffs)?;
    prepare_maps(&pins, config.max_wires)?;
    let mut ebpf = load_object(config, &pins)?;
    let fresh = load_program(&mut ebpf)?;
    let attachments = Attachments::new(backend, &config.node, &pins.links());
    let program = take_over(&pins, config, fresh, &attachments, netlink)?;
    let open = |layout: &Layout| {
        let path = pins.map(layout.name);
        bpf::get_pinned(&path).map_err(LoadError::doing(format!("open the map {}", path.display())))
    };
    let [
        own,
        positions,
        generation,
        counters,
        reasons,
        splits,
        flows,
        liveness,
    ] = &PINNED;
    let cpus = possible_cpus().map_err(LoadError::doing("count the processors"))?;
    let entries = positions.entries(config.max_wires);
    let use_maps = LoadError::doing("use the pinned maps");
    let maps = (|| {
        Ok((
            Positions::new(open_io(open(own))?, open_io(open(positions))?, entries)?,
            GenerationWord::new(open_io(open(generation))?)?,
            Counters::new(open_io(open(counters))?, cpus, entries)?,
            Reasons::new(open_io(open(reasons))?, cpus)?,
            Splits::new(open_io(open(splits))?, splits.entries(config.max_wires))?,
            Flows::new(open_io(open(flows))?)?,
            Liveness::new(open_io(open(liveness))?, entries)?,
        ))
    })();
    let (positions, generation, counters, reasons, splits, flows, liveness) = maps.map_err(use_maps)?;
    let events = event_reader(&pins.program(&config.constants()));
    Ok(Loaded {
        #[cfg(feature = "trace")]
        trace: super::trace::follow(&pins.program(&config.constants())),
        pins,
        release,
        program,
        attachments,
        positions,
        generation,
        counters,
        reasons,
        splits,
        flows,
        liveness,
        events,
    })
}

fn open_io(opened: Result<OwnedFd, LoadError>) -> io::Result<OwnedFd> {
    opened.map_err(io::Error::other)
}

/// Whether an earlier agent's tables of this size, if there are any, hold a position.
fn has_positions(pins: &Pins, entries: u32) -> io::Result<bool> {
    let open = |name| bpf::get_pinned(&pins.map(name));
    let tables = open(names::MAP_OWN_POSITIONS).and_then(|own| Ok((own, open(names::MAP_POSITIONS)?)));
    match tables {
        Ok((own, others)) => Ok(!Positions::new(own, others, entries)?.all()?.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Compares the pinned maps with what is needed. Tables of another size are made anew if nothing is in them.
fn prepare_maps(pins: &Pins, max_wires: u32) -> Result<(), LoadError> {
    let mut other_size = None;
    for layout in &PINNED {
        let path = pins.map(layout.name);
        let compared = layout.compare(&path, max_wires);
        match compared.map_err(LoadError::doing(format!("look at the pin {}", path.display())))? {
            None | Some(Ok(())) => {}
            Some(Err(Mismatch::Size(wires))) => other_size = Some(wires),
            Some(Err(mismatch @ Mismatch::Layout)) => {
                return Err(LoadError::ForeignPin {
                    path,
                    detail: mismatch.to_string(),
                });
            }
        }
    }
    let Some(pinned) = other_size else { return Ok(()) };
    let links = pins
        .links()
        .all()
        .map_err(LoadError::doing("list the pinned links"))?;
    // Host ends have no pins: what is in the tables says whether there are wires.
    let entries = pinned.saturating_mul(POSITIONS_PER_WIRE);
    let has_wires = has_positions(pins, entries).map_err(LoadError::doing("read the pinned positions"))?;
    if !links.is_empty() || has_wires {
        return Err(LoadError::TableSize {
            path: pins.root().to_owned(),
            pinned,
            wanted: max_wires,
        });
    }
    // The program goes with the tables that it was loaded with.
    let programs =
        std::fs::read_dir(pins.programs()).map_err(LoadError::doing("list the pinned programs"))?;
    let programs = programs.filter_map(|entry| Some(entry.ok()?.path()));
    let tables = PINNED
        .iter()
        .filter(|layout| layout.is_configured())
        .map(|layout| pins.map(layout.name));
    for path in programs.chain(tables) {
        remove(&path).map_err(LoadError::doing(format!("remove the pin {}", path.display())))?;
    }
    Ok(())
}

fn load_object(config: &Config, pins: &Pins) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    let constants = config.constants();
    loader.override_global(names::GLOBAL_EVENT_SAMPLE, &constants.event_sample, true);
    loader.override_global(names::GLOBAL_PROBE_COOKIE, &constants.probe_cookie, true);
    for layout in &PINNED {
        loader.map_pin_path(layout.name, pins.map(layout.name));
        loader.map_max_entries(layout.name, layout.entries(config.max_wires));
    }
    let ebpf = loader.load(crate::OBJECT).map_err(refused)?;
    let programs = ebpf.programs().map(|(name, _)| name);
    check_names("programs", programs, names::PROGRAMS)?;
    // Sections of constants are maps to the loader, and logging has a map of its own.
    let own = |name: &&str| !name.starts_with('.') && !name.starts_with("AYA_");
    let maps = ebpf.maps().map(|(name, _)| name).filter(own);
    check_names("maps", maps, names::MAPS)?;
    Ok(ebpf)
}

fn check_names<'a>(
    what: &'static str,
    found: impl Iterator<Item = &'a str>,
    expected: &[&str],
) -> Result<(), LoadError> {
    let found: BTreeSet<&str> = found.collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    if found == expected {
        return Ok(());
    }
    let list = |set: &BTreeSet<&str>| set.iter().map(|name| (*name).to_owned()).collect();
    Err(LoadError::Object {
        what,
        found: list(&found),
        expected: list(&expected),
    })
}

fn load_program(ebpf: &mut Ebpf) -> Result<OwnedFd, LoadError> {
    let missing = || LoadError::Object {
        what: "programs",
        found: Vec::new(),
        expected: vec![names::PROGRAM_WIRE_INGRESS.to_owned()],
    };
    let program = ebpf
        .program_mut(names::PROGRAM_WIRE_INGRESS)
        .ok_or_else(missing)?;
    let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    let fd: BorrowedFd<'_> = program.fd().map_err(refused)?.as_fd();
    fd.try_clone_to_owned()
        .map_err(LoadError::doing("keep the program"))
}

/// The program to go on with. If the pinned one is the same, it stays; else the fresh one goes under every
/// attachment first and is pinned then, so that an agent that is killed in between starts over.
fn take_over(
    pins: &Pins,
    config: &Config,
    fresh: OwnedFd,
    attachments: &Attachments,
    netlink: &mut Netlink,
) -> Result<OwnedFd, LoadError> {
    let path = pins.program(&config.constants());
    let compare = || LoadError::doing("compare the pinned program");
    if let Ok(pinned) = bpf::get_pinned(&path) {
        let tag = bpf::program_tag(pinned.as_fd()).map_err(compare())?;
        if tag == bpf::program_tag(fresh.as_fd()).map_err(compare())? {
            return Ok(pinned);
        }
    }
    attachments
        .replace(netlink, fresh.as_fd())
        .map_err(LoadError::doing("put the new program under the wires"))?;
    let replace_pin = || {
        for entry in std::fs::read_dir(pins.programs())? {
            remove(&entry?.path())?;
        }
        bpf::pin(fresh.as_fd(), &path)
    };
    replace_pin().map_err(LoadError::doing(format!("pin the program {}", path.display())))?;
    Ok(fresh)
}

/// The ring that the program in force writes to: found through the program, for an adopted one was loaded with a
/// ring of its own.
fn event_reader(program: &Path) -> Option<EventReader> {
    let ids = ProgramInfo::from_pin(program).ok()?.map_ids().ok()??;
    let is_ring =
        |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(names::MAP_EVENTS));
    let id = ids.into_iter().find(is_ring)?;
    let ring = RingBuf::try_from(Map::from_map_data(MapData::from_id(id).ok()?).ok()?).ok()?;
    Some(EventReader::new(ring))
}

fn refused(error: impl std::error::Error) -> LoadError {
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        append(&mut detail, cause);
        source = cause.source();
    }
    LoadError::Refused { detail }
}

fn append(detail: &mut String, cause: &dyn Display) {
    detail.push_str(": ");
    detail.push_str(&cause.to_string());
}
