//! What silence means, look by look.

use super::*;
use crate::{
    circuit::Circuit,
    desired::{End, IfName, InterfaceEnd},
};

const MS: u64 = 1_000_000;

fn path(n: usize) -> Path {
    Circuit {
        hops: Vec::new(),
        endpoint_name: String::new(),
        endpoint: End::Interface(InterfaceEnd {
            name: IfName::new(&format!("tap{n}")).unwrap(),
        }),
    }
    .path()
}

fn wire(n: usize) -> WireId {
    WireId(format!("w{n}"))
}

/// Workloads that answer at once, unless they are dead.
struct Lab {
    watch: Watch,
    now: u64,
    dead: BTreeSet<u32>,
    /// Looks at which an answer gets lost.
    loses: BTreeSet<(u32, u64)>,
    replies: BTreeMap<u32, u64>,
    packets: BTreeMap<u32, u64>,
    asked: u64,
    notices: Vec<(u64, u32, bool)>,
    /// Paths that answered for the first time.
    found: Vec<u32>,
}

impl Lab {
    fn new() -> Self {
        Self {
            watch: Watch::new(Timing::default()),
            now: 1000 * MS,
            dead: BTreeSet::new(),
            loses: BTreeSet::new(),
            replies: BTreeMap::new(),
            packets: BTreeMap::new(),
            asked: 0,
            notices: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Path `p` can be asked by wire `w`, whose position has slot `s`.
    fn add(&mut self, w: usize, paths: &[(usize, u32)]) {
        self.find(w, paths, &[]);
    }

    /// The same; answers had come in at the slots in `found` when the agent started.
    fn find(&mut self, w: usize, paths: &[(usize, u32)], found: &[u32]) {
        let target = |(p, slot): &(usize, u32)| {
            let target = Target {
                endpoint: format!("nse-{p}"),
                index: *slot,
                slot: *slot,
                frame: Box::from([]),
            };
            (path(*p), target)
        };
        let targets = paths.iter().map(target).collect();
        self.watch.change(
            WatchChange {
                wire: wire(w),
                targets,
                found: found.iter().copied().collect(),
            },
            self.now,
        );
    }

    fn numbered(&self, path_of: &Path) -> u32 {
        u32::try_from((0..100).find(|n| path(*n) == *path_of).unwrap()).unwrap()
    }

    /// Lets time pass until `until`, looking whenever it is due.
    fn run(&mut self, until: u64) {
        while let Some(next) = self.watch.next().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            for due in self.watch.due(self.now) {
                let sense = Sense {
                    reply_ns: self.replies.get(&due.slot).copied().unwrap_or(0),
                    packets: self.packets.get(&due.slot).copied().unwrap_or(0),
                };
                let (ask, notice) = self.watch.look(&due.path, sense, self.now);
                if let Some(notice) = notice {
                    let path = self.numbered(&notice.path);
                    if notice.alive && notice.first {
                        self.found.push(path);
                    } else {
                        self.notices.push((self.now, path, notice.alive));
                    }
                }
                if let Ask::Send { index, .. } = ask {
                    self.asked += 1;
                    let lost = self.loses.remove(&(index, self.asked));
                    if !self.dead.contains(&index) && !lost {
                        self.replies.insert(index, self.now + 1);
                    }
                }
            }
        }
        self.now = until;
    }

    fn run_ms(&mut self, ms: u64) {
        self.run(self.now + ms * MS);
    }
}

#[test]
fn a_path_that_falls_silent_is_dead_within_a_tenth_of_a_second_and_alive_again_when_it_answers() {
    let mut lab = Lab::new();
    lab.add(1, &[(0, 7)]);
    lab.run_ms(500);
    assert!(lab.notices.is_empty() && lab.asked >= 25, "{}", lab.asked);
    let died = lab.now;
    lab.dead.insert(7);
    lab.run_ms(1000);
    let (at, path, alive) = lab.notices[0];
    assert!(at - died <= 100 * MS, "{}", (at - died) / MS);
    assert_eq!((path, alive, lab.notices.len()), (0, false, 1));
    lab.dead.clear();
    lab.run_ms(1000);
    assert_eq!(lab.notices.len(), 2);
    assert!(lab.notices[1].2);
}

#[test]
fn one_lost_answer_or_two_are_no_death() {
    let mut lab = Lab::new();
    lab.add(1, &[(0, 7)]);
    for nth in [5, 6, 9, 10, 14, 17, 18] {
        lab.loses.insert((7, nth));
    }
    lab.run_ms(2000);
    assert!(lab.notices.is_empty());
    assert!(lab.loses.is_empty(), "all of them were lost");
}

#[test]
fn what_never_answered_is_never_dead() {
    let mut lab = Lab::new();
    lab.dead.insert(7);
    lab.add(1, &[(0, 7)]);
    // Packets come from it, so it lives; but it has never answered.
    for n in 0..20 {
        lab.packets.insert(7, n);
        lab.run_ms(20);
    }
    lab.run_ms(2000);
    assert!(lab.notices.is_empty());
}

#[test]
fn a_path_that_flaps_is_alive_only_after_several_answers() {
    let mut lab = Lab::new();
    lab.add(1, &[(0, 7)]);
    lab.run_ms(100);
    lab.dead.insert(7);
    lab.run_ms(200);
    assert_eq!(lab.notices.len(), 1);
    // It answers now and then, never three times in a row.
    for _ in 0..10 {
        lab.dead.clear();
        lab.run_ms(200);
        lab.dead.insert(7);
        lab.run_ms(100);
    }
    assert_eq!(lab.notices.len(), 1, "{:?}", lab.notices);
}

#[test]
fn where_packets_come_back_nothing_is_asked_and_their_end_is_noticed() {
    let mut lab = Lab::new();
    lab.add(1, &[(0, 7)]);
    lab.run_ms(100);
    let asked = lab.asked;
    for n in 1..100 {
        lab.packets.insert(7, n);
        lab.run_ms(20);
    }
    assert!(lab.asked <= asked + 2, "{} questions", lab.asked - asked);
    let died = lab.now;
    lab.dead.insert(7);
    lab.run_ms(500);
    let (at, _, alive) = lab.notices[0];
    assert!(!alive && at - died <= 120 * MS, "{}", (at - died) / MS);
}

#[test]
fn a_wire_that_lost_its_own_end_does_not_kill_the_path() {
    let mut lab = Lab::new();
    lab.add(1, &[(0, 7)]);
    lab.add(2, &[(0, 8)]);
    lab.run_ms(200);
    lab.dead.insert(7);
    lab.run_ms(1000);
    assert!(lab.notices.is_empty(), "the other wire answers");
    lab.dead.insert(8);
    lab.run_ms(200);
    assert_eq!(lab.notices.len(), 1);
}

#[test]
fn when_most_fall_silent_at_once_twice_as_much_is_asked_first() {
    let mut lab = Lab::new();
    for n in 0..10usize {
        lab.add(n, &[(n, u32::try_from(n).unwrap())]);
    }
    lab.run_ms(500);
    // One of ten: at once. Nine of ten: later.
    let died = lab.now;
    lab.dead.insert(0);
    lab.run_ms(200);
    assert!(lab.notices[0].0 - died <= 100 * MS);
    let died = lab.now;
    lab.dead.extend(1..10);
    lab.run_ms(400);
    assert_eq!(lab.notices.len(), 10);
    let soonest = lab.notices[1].0 - died;
    assert!((100 * MS..=200 * MS).contains(&soonest), "{}", soonest / MS);
}

#[test]
fn a_pause_of_the_node_is_nobodys_death() {
    let mut lab = Lab::new();
    for n in 0..3usize {
        lab.add(n, &[(n, u32::try_from(n).unwrap())]);
    }
    lab.run_ms(500);
    for _ in 0..10 {
        // Nothing runs for a second, but what was asked was answered.
        lab.now += 1000 * MS;
        lab.run_ms(40);
    }
    assert!(lab.notices.is_empty());
}

#[test]
fn many_paths_are_asked_less_often_so_that_their_questions_are_bounded() {
    let mut lab = Lab::new();
    for n in 0..100usize {
        lab.add(n, &[(n, u32::try_from(n).unwrap())]);
    }
    assert_eq!(lab.watch.interval(), Duration::from_millis(50));
    let asked = lab.asked;
    lab.run_ms(1000);
    assert!(
        (1900..=2200).contains(&(lab.asked - asked)),
        "{}",
        lab.asked - asked
    );
}

#[test]
fn a_wire_that_changes_or_goes_takes_its_paths_along() {
    let mut lab = Lab::new();
    lab.add(1, &[(0, 7), (1, 8)]);
    lab.add(2, &[(1, 9)]);
    assert_eq!(lab.watch.len(), 2);
    lab.add(1, &[(2, 7)]);
    assert_eq!(lab.watch.len(), 2, "the first path has no wire any more");
    lab.run_ms(100);
    lab.add(1, &[]);
    lab.add(2, &[]);
    assert!(lab.watch.is_empty());
    assert_eq!(lab.watch.next(), None);
    assert_eq!((lab.watch.alive, lab.watch.silent), (0, 0));
}

#[test]
fn what_an_agent_before_had_an_answer_of_can_die_before_it_has_answered_this_one() {
    let mut lab = Lab::new();
    lab.dead = BTreeSet::from([7, 8]);
    lab.find(1, &[(0, 7), (1, 8)], &[8]);
    lab.run_ms(500);
    assert_eq!(
        lab.notices
            .iter()
            .map(|(_, path, alive)| (*path, *alive))
            .collect::<Vec<_>>(),
        [(1, false)]
    );
    lab.dead.clear();
    lab.run_ms(1000);
    assert_eq!(lab.found, [0], "nobody has heard of it");
    assert_eq!(
        lab.notices.last().map(|(_, path, alive)| (*path, *alive)),
        Some((1, true))
    );
    // One that was found alive and is so is news as well: nobody told this agent's control.
    let mut lab = Lab::new();
    lab.find(1, &[(0, 7)], &[7]);
    lab.run_ms(500);
    assert_eq!((lab.found.as_slice(), lab.notices.len()), ([0].as_slice(), 0));
}
