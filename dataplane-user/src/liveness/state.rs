//! When to ask, and what silence means. Time is an argument: nanoseconds of `CLOCK_MONOTONIC`.
//!
//! A path is *untested* until the first answer comes: what never answers (a firewall, a guest that is still starting) is
//! never called dead. An answer that an agent before this one has had counts. It is dead when several questions in a row have no answer, and alive again when several have one.
//! When many paths fall silent at once, the fault may be the node's, and twice as many questions are asked first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::target::{Target, WatchChange};
use crate::{circuit::Path, desired::WireId};

/// How often, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one look at a path to the next.
    pub interval: Duration,
    /// Looks per second, all paths together: with more paths, each is looked at less often.
    pub most_per_second: u32,
    /// Questions without an answer until a path is dead.
    pub patience: u32,
    /// Answers in a row until it is alive again.
    pub recovery: u32,
    /// How much longer the interval is while a path is dead.
    pub slower_when_dead: u32,
    /// From so many paths on, silence of more than half of them is not believed at once.
    pub crowd: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(20),
            most_per_second: 2000,
            patience: 3,
            recovery: 3,
            slower_when_dead: 5,
            crowd: 4,
        }
    }
}

/// What is seen of a path at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// When the last answer came in; 0: never.
    pub reply_ns: u64,
    /// Packets that have come in where the answer would.
    pub packets: u64,
}

/// A look that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The path.
    pub path: Path,
    /// The counter slot to read the [`Sense`] at.
    pub slot: u32,
}

/// What to do after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Send this frame out of this interface.
    Send {
        /// Its index.
        index: u32,
        /// The probe.
        frame: Box<[u8]>,
    },
    /// Nothing.
    Rest,
}

/// A path has died or come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The path.
    pub path: Path,
    /// The endpoint that it ends at.
    pub endpoint: String,
    /// Whether it is alive from here on.
    pub alive: bool,
    /// Whether nothing was known of it before.
    pub first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untested,
    Alive,
    Dead,
}

/// One path.
#[derive(Clone, Debug)]
struct Watched {
    /// By wire; never empty.
    targets: BTreeMap<WireId, Target>,
    /// The wire that is asked.
    turn: WireId,
    state: State,
    /// Whether a notice of it was given.
    noticed: bool,
    /// Questions in a row without an answer; of a dead path, answers in a row.
    row: u32,
    asked: Option<u64>,
    packets: Option<u64>,
    next: u64,
}

/// All paths.
#[derive(Clone, Debug)]
pub struct Watch {
    timing: Timing,
    paths: BTreeMap<Path, Watched>,
    by_wire: BTreeMap<WireId, BTreeSet<Path>>,
    /// Every path by the time of its next look.
    queue: BTreeSet<(u64, Path)>,
    /// How many paths are alive, and how many of them have not answered the last question.
    alive: usize,
    silent: usize,
}

impl Watch {
    /// Nothing is watched yet.
    #[must_use]
    pub const fn new(timing: Timing) -> Self {
        Self {
            timing,
            paths: BTreeMap::new(),
            by_wire: BTreeMap::new(),
            queue: BTreeSet::new(),
            alive: 0,
            silent: 0,
        }
    }

    /// A wire is watched by other paths, or not any more. A path without a wire is forgotten. One where an answer had come
    /// in at a slot that was `found` was alive then.
    pub fn change(&mut self, change: WatchChange, now: u64) {
        let WatchChange { wire, targets, found } = change;
        let paths: BTreeSet<Path> = targets.iter().map(|(path, _)| path.clone()).collect();
        for path in self.by_wire.remove(&wire).unwrap_or_default() {
            if !paths.contains(&path) {
                self.leave(&path, &wire);
            }
        }
        for (path, target) in targets {
            let watched = self.paths.entry(path.clone()).or_insert_with(|| {
                self.queue.insert((now, path));
                Watched::new(&wire, now)
            });
            if watched.state == State::Untested && found.contains(&target.slot) {
                watched.state = State::Alive;
                self.alive += 1;
            }
            watched.targets.insert(wire.clone(), target);
        }
        if !paths.is_empty() {
            self.by_wire.insert(wire, paths);
        }
    }

    fn leave(&mut self, path: &Path, wire: &WireId) {
        let Some(watched) = self.paths.get_mut(path) else {
            return;
        };
        watched.targets.remove(wire);
        if watched.targets.is_empty() {
            self.queue.remove(&(watched.next, path.clone()));
            let (alive, silent) = watched.counts();
            (self.alive, self.silent) = (self.alive - alive, self.silent - silent);
            self.paths.remove(path);
        } else if watched.turn == *wire {
            watched.pass_on();
        }
    }

    /// Whether a wire is watched at this slot.
    #[must_use]
    pub fn has(&self, wire: &WireId, slot: u32) -> bool {
        let paths = self.by_wire.get(wire).into_iter().flatten();
        let mut targets = paths.filter_map(|path| self.paths.get(path)?.targets.get(wire));
        targets.any(|target| target.slot == slot)
    }

    /// How many paths are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// From one look at a path to the next, at this number of paths.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let paths = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        let round = Duration::from_secs(1) / self.timing.most_per_second.max(1) * paths;
        self.timing.interval.max(round)
    }

    /// When the next look is due.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.queue.first().map(|(next, _)| *next)
    }

    /// The looks that are due.
    #[must_use]
    pub fn due(&self, now: u64) -> Vec<Due> {
        let due = self.queue.iter().take_while(|(next, _)| *next <= now);
        due.filter_map(|(_, path)| {
            let watched = self.paths.get(path)?;
            Some(Due {
                path: path.clone(),
                slot: watched.targets.get(&watched.turn)?.slot,
            })
        })
        .collect()
    }

    /// What was seen at a look, and what follows from it.
    pub fn look(&mut self, path: &Path, sense: Sense, now: u64) -> (Ask, Option<Notice>) {
        let (interval, patience) = (self.interval(), self.patience());
        let timing = self.timing;
        let Some(watched) = self.paths.get_mut(path) else {
            return (Ask::Rest, None);
        };
        let answered = watched.asked.is_some_and(|asked| sense.reply_ns >= asked);
        let came_in = watched.packets.is_some_and(|before| sense.packets > before);
        let missed = watched.asked.is_some() && !answered && !came_in;
        let counted = watched.counts();
        let before = watched.state;
        match watched.state {
            State::Untested if answered => (watched.state, watched.row) = (State::Alive, 0),
            State::Untested => {}
            State::Alive if answered || came_in => watched.row = 0,
            State::Alive if missed => watched.row += 1,
            State::Alive => {}
            State::Dead if answered || came_in => watched.row += 1,
            State::Dead => watched.row = 0,
        }
        match watched.state {
            State::Alive if watched.row >= patience => (watched.state, watched.row) = (State::Dead, 0),
            State::Dead if watched.row >= timing.recovery => (watched.state, watched.row) = (State::Alive, 0),
            _ => {}
        }
        if missed {
            // Perhaps only this wire has lost its end.
            watched.pass_on();
        } else {
            watched.packets = Some(sense.packets);
        }
        let slower = if watched.state == State::Dead {
            timing.slower_when_dead
        } else {
            1
        };
        self.queue.remove(&(watched.next, path.clone()));
        watched.next = now.saturating_add(nanoseconds(interval * slower));
        self.queue.insert((watched.next, path.clone()));
        let ask = if came_in && watched.state == State::Alive {
            watched.asked = None;
            Ask::Rest
        } else {
            watched.ask(now)
        };
        let (alive, silent) = watched.counts();
        self.alive = self.alive + alive - counted.0;
        self.silent = self.silent + silent - counted.1;
        (ask, watched.notice(path, before, answered || came_in))
    }

    fn patience(&self) -> u32 {
        let crowd = self.alive >= self.timing.crowd && self.silent * 2 > self.alive;
        self.timing.patience * if crowd { 2 } else { 1 }
    }
}

impl Watched {
    fn new(wire: &WireId, now: u64) -> Self {
        Self {
            targets: BTreeMap::new(),
            turn: wire.clone(),
            state: State::Untested,
            noticed: false,
            row: 0,
            asked: None,
            packets: None,
            next: now,
        }
    }

    /// The next wire is asked.
    fn pass_on(&mut self) {
        let after = (std::ops::Bound::Excluded(&self.turn), std::ops::Bound::Unbounded);
        let next = self
            .targets
            .range::<WireId, _>(after)
            .next()
            .or_else(|| self.targets.iter().next());
        if let Some((wire, _)) = next {
            self.turn = wire.clone();
        }
        // Another wire's counter is another count, and its answer comes in elsewhere.
        (self.packets, self.asked) = (None, None);
    }

    /// 1 if it is alive, and 1 if it is so and has not answered the last question.
    fn counts(&self) -> (usize, usize) {
        let alive = self.state == State::Alive;
        (usize::from(alive), usize::from(alive && self.row > 0))
    }

    fn ask(&mut self, now: u64) -> Ask {
        let Some(target) = self.targets.get(&self.turn) else {
            self.asked = None;
            return Ask::Rest;
        };
        self.asked = Some(now);
        Ask::Send {
            index: target.index,
            frame: target.frame.clone(),
        }
    }

    fn notice(&mut self, path: &Path, before: State, heard: bool) -> Option<Notice> {
        let alive = match (before, self.state) {
            (State::Alive, State::Dead) => false,
            (State::Dead, State::Alive) => true,
            (_, State::Alive) if heard && !self.noticed => true,
            _ => return None,
        };
        let endpoint = self.targets.values().next()?.endpoint.clone();
        let first = !std::mem::replace(&mut self.noticed, true);
        Some(Notice {
            path: path.clone(),
            endpoint,
            alive,
            first,
        })
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
