//! What the kernel holds, read without the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_common::{abi::Position, limits::OWN_INDEX_BASE, names};
use tieline_lab::{Link, NetNs};

/// Positions, pinned links and interfaces of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The forwarding table, by interface index.
    pub positions: BTreeMap<u32, Position>,
    /// File names of the pinned links.
    pub links: BTreeSet<String>,
    /// Interfaces of the node's namespace, by index.
    pub interfaces: BTreeMap<u32, Link>,
}

impl Kernel {
    /// Reads it for the node in `netns` with this folder of pins.
    pub fn read(netns: &NetNs, pins: &Path) -> Result<Self> {
        let positions = others(pins)?.iter().collect::<Result<BTreeMap<_, _>, _>>();
        let mut positions = positions.context("read the positions of existing interfaces")?;
        for (key, position) in (0..).zip(own(pins)?.iter()) {
            let position: Position = position.context("read the positions of Tieline's interfaces")?;
            if !position.is_absent() {
                positions.insert(OWN_INDEX_BASE + key, position);
            }
        }
        let interfaces = netns.net(tieline_lab::Net::links)?;
        Ok(Self {
            positions,
            links: file_names(&pins.join(names::PIN_LINKS))?,
            interfaces: interfaces.into_iter().map(|link| (link.ifindex, link)).collect(),
        })
    }

    /// Writes a position behind the agent's back: to prove that a test notices.
    pub fn tamper(pins: &Path, ifindex: u32, position: Position) -> Result<()> {
        match ifindex.checked_sub(OWN_INDEX_BASE) {
            Some(key) => Ok(own(pins)?.set(key, position, 0)?),
            None => Ok(others(pins)?.insert(ifindex, position, 0)?),
        }
    }

    /// Fails unless every position is that of an interface, leads to another position and back, has a counter slot
    /// of its own, and there are exactly two for each of `wires` wires.
    pub fn assert_whole(&self, wires: usize) -> Result<()> {
        self.assert_whole_with(wires, 0)
    }

    /// As [`Self::assert_whole`], with `reserves` more positions: ends that are held in reserve, which lead to their
    /// wire while it does not lead to them.
    pub fn assert_whole_with(&self, wires: usize, reserves: usize) -> Result<()> {
        let names: BTreeMap<u32, &str> = self
            .interfaces
            .iter()
            .map(|(index, link)| (*index, &*link.name))
            .collect();
        ensure!(
            self.positions.len() == 2 * wires + reserves,
            "{} positions for {wires} wires: {:?} of {names:?}",
            self.positions.len(),
            self.positions
        );
        let mut slots = BTreeSet::new();
        let mut one_way = Vec::new();
        for (ifindex, position) in &self.positions {
            ensure!(
                self.interfaces.contains_key(ifindex),
                "position {ifindex} has no interface: {names:?}"
            );
            ensure!(
                slots.insert(position.slot),
                "two positions count in slot {}",
                position.slot
            );
            let to = position.next.ifindex;
            let back = self.positions.get(&to).map(|far| far.next.ifindex);
            ensure!(back.is_some(), "position {ifindex} leads to {to}, which is none");
            if back != Some(*ifindex) {
                one_way.push((*ifindex, to));
            }
        }
        ensure!(
            one_way.len() == reserves,
            "{reserves} ends are held in reserve, and these are not led back to: {one_way:?}"
        );
        Ok(())
    }
}

fn own(pins: &Path) -> Result<Array<MapData, Position>> {
    Ok(Map::Array(pinned(pins, names::MAP_OWN_POSITIONS)?).try_into()?)
}

fn others(pins: &Path) -> Result<HashMap<MapData, u32, Position>> {
    Ok(Map::HashMap(pinned(pins, names::MAP_POSITIONS)?).try_into()?)
}

fn pinned(pins: &Path, name: &str) -> Result<MapData> {
    let path = pins.join(names::PIN_MAPS).join(name);
    MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))
}

fn file_names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // With the clsact back end there are no links.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
