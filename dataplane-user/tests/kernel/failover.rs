//! An endpoint dies, and the wire leads to its backup before anybody notices.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dataplane_user::{
    LinkMonitor, LinkNotice,
    desired::Wire,
    kernel::Kernel,
    liveness::{Notice, Timing},
    loader::Backend,
    outcome::News,
    reconcile::Reconciler,
};
use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping, slow};

use crate::{
    circuits::{gateway, through},
    world::{World, all_well, endpoint_ip, remove, upsert, wire},
};

const KILLS: usize = 20;
const PORT: u16 = 9000;
/// The goal, from the death to the first packet at the backup.
const GOAL: Duration = Duration::from_millis(150);

/// What the agent's worker hears.
enum Heard {
    Paths(Vec<Notice>),
    Links(LinkNotice),
}

/// A node whose worker is the test's thread.
struct Node<'a> {
    world: &'a World,
    reconciler: Reconciler<Kernel>,
    heard: mpsc::Receiver<Heard>,
    _links: LinkMonitor,
    /// What control would have heard.
    news: Vec<News>,
}

impl<'a> Node<'a> {
    fn start(world: &'a World) -> Result<Self> {
        let (sender, heard) = mpsc::channel();
        let (paths, links) = (sender.clone(), sender);
        let (reconciler, links) = world.agent.run(|| {
            let mut kernel = Kernel::open(&world.config)?;
            kernel.watch_paths(Timing::default(), move |notices| {
                let _ = paths.send(Heard::Paths(notices));
            })?;
            let links = LinkMonitor::spawn(move |notice| {
                let _ = links.send(Heard::Links(notice));
            })?;
            let mut reconciler = Reconciler::new(kernel);
            reconciler.adopt()?;
            Ok((reconciler, links))
        })?;
        Ok(Self {
            world,
            reconciler,
            heard,
            _links: links,
            news: Vec::new(),
        })
    }

    /// Works until `until`, or until a path has died or come back; returns those.
    fn work(&mut self, until: Instant) -> Result<Vec<Notice>> {
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            let Ok(heard) = self.heard.recv_timeout(wait) else {
                return Ok(Vec::new());
            };
            let (world, reconciler) = (self.world, &mut self.reconciler);
            match heard {
                Heard::Links(LinkNotice::Gone(indexes)) => {
                    world
                        .agent
                        .run(|| Ok(reconciler.interfaces_lost(&indexes, Instant::now())?))?;
                }
                Heard::Links(LinkNotice::Overrun) => drop(world.pass(reconciler)?),
                Heard::Paths(notices) => {
                    let outcome = world
                        .agent
                        .run(|| Ok(reconciler.paths_changed(&notices, Instant::now())?))?;
                    self.news.push(outcome.news);
                    // That something answers for the first time changes nothing.
                    if !notices.iter().all(|notice| notice.first && notice.alive) {
                        return Ok(notices);
                    }
                }
            }
        }
    }

    /// Works for a while.
    fn work_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.work(until)?;
        }
        Ok(())
    }
}

/// How an endpoint dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its namespace is removed.
    Namespace,
    /// Its interface goes down.
    Down,
    /// The function on the way stops forwarding.
    Function,
}

/// The client sends a datagram every millisecond, and the first endpoint answers each while it lives, if it `echoes`.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    arrival: JoinHandle<io::Result<Instant>>,
}

impl Traffic {
    fn start(client: &NetNs, first: &NetNs, spare: &NetNs, echoes: bool) -> Result<Self> {
        let to = SocketAddr::new(endpoint_ip(1), PORT);
        let stop = Arc::new(AtomicBool::new(false));
        let bound = |netns: &NetNs| netns.run(|| UdpSocket::bind(to).context("listen"));
        let at_spare = bound(spare)?;
        at_spare.set_read_timeout(Some(slow(Duration::from_secs(5))))?;
        let arrival = std::thread::spawn(move || at_spare.recv_from(&mut [0; 16]).map(|_| Instant::now()));
        let sender = client.run(|| UdpSocket::bind("0.0.0.0:0").context("send"))?;
        let stopped = Arc::clone(&stop);
        let mut threads = vec![std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = sender.send_to(b"x", to);
                std::thread::sleep(Duration::from_millis(1));
            }
        })];
        if echoes {
            let socket = bound(first)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            let stopped = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    if let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                        let _ = socket.send_to(b"y", from);
                    }
                }
            }));
        }
        Ok(Self {
            stop,
            threads,
            arrival,
        })
    }

    /// When the first datagram came to the spare endpoint.
    fn arrived(self) -> Result<Instant> {
        let arrived = self.arrival.join().ok().context("the receiver panicked")?;
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a sender panicked")?;
        }
        arrived.context("no packet came to the backup")
    }
}

/// From the death to the first datagram at the backup.
fn kill(death: Death, echoes: bool) -> Result<Duration> {
    let world = World::new("kill", Backend::Auto)?;
    let [client, first, spare, fw] = ["kill-c", "kill-a", "kill-b", "kill-f"].map(NetNs::new);
    let (client, first, spare, fw) = (client?, first?, spare?, fw?);
    let mut node = Node::start(&world)?;
    let mut planned = wire(1, &client, &first)?;
    if matches!(death, Death::Function) {
        planned = through(&planned, vec![gateway(&fw, &planned)?])?;
    }
    planned.backup = Some(wire(1, &client, &spare)?.branches.remove(0).circuit);
    planned.probe = true;
    all_well(&world.snapshot(&mut node.reconciler, 1, vec![planned])?)?;
    // Until it has answered for the first time.
    node.work_for(slow(Duration::from_millis(150)))?;
    let traffic = Traffic::start(&client, &first, &spare, echoes)?;
    node.work_for(Duration::from_millis(100))?;
    match death {
        Death::Namespace => first.remove()?,
        Death::Down => first.net(|net| net.set_down("nse-1"))?,
        Death::Function => fw.sysctl("ipv4/conf/nse-7/forwarding", "0")?,
    }
    // The kernel waits for whoever holds its network lock before it does what it is told; that is no part of this.
    let died = Instant::now();
    while !traffic.arrival.is_finished() {
        node.work(Instant::now() + Duration::from_millis(5))?;
    }
    Ok(traffic.arrived()?.saturating_duration_since(died))
}

fn median_of_kills(death: Death, echoes: bool) -> Result<Duration> {
    let kills = (0..KILLS).map(|_| kill(death, echoes).with_context(|| format!("{death:?}")));
    let mut times: Vec<Duration> = kills.collect::<Result<_>>()?;
    times.sort();
    println!("{death:?}, packets come back: {echoes}: {times:?}");
    Ok(times[KILLS / 2])
}

#[test]
fn the_first_packet_is_at_the_backup_within_150_milliseconds_of_a_death() -> Result<()> {
    for (death, echoes) in [
        (Death::Down, false),
        (Death::Down, true),
        (Death::Function, false),
        (Death::Namespace, false),
    ] {
        let median = median_of_kills(death, echoes)?;
        ensure!(median <= slow(GOAL), "{death:?}: {median:?}");
    }
    Ok(())
}

#[test]
fn two_hundred_wires_leave_a_dead_endpoint_at_once() -> Result<()> {
    const WIRES: u8 = 200;
    let world = World::new("many", Backend::Auto)?;
    let [client, first, spare] = ["many-c", "many-a", "many-b"].map(NetNs::new);
    let (client, first, spare) = (client?, first?, spare?);
    let mut node = Node::start(&world)?;
    let planned = |n| -> Result<Wire> {
        Ok(Wire {
            backup: Some(wire(n, &client, &spare)?.branches.remove(0).circuit),
            probe: true,
            ..wire(n, &client, &first)?
        })
    };
    let wires = (1..=WIRES).map(planned).collect::<Result<Vec<_>>>()?;
    all_well(&world.snapshot(&mut node.reconciler, 1, wires)?)?;
    node.work_for(slow(Duration::from_millis(300)))?;
    let traffic = Traffic::start(&client, &first, &spare, false)?;
    first.sysctl("ipv4/icmp_echo_ignore_all", "1")?;
    let died = Instant::now();
    ends_at(&mut node, || Ok(()))?;
    let arrived = traffic.arrived()?.saturating_duration_since(died);
    println!("{WIRES} wires: {arrived:?}, everything {:?}", died.elapsed());
    ensure!(arrived <= slow(GOAL), "{arrived:?}");
    let switched = node.news.iter().flat_map(|news| &news.switched);
    ensure!(switched.count() == usize::from(WIRES));
    for n in [1, WIRES] {
        ping(&client, endpoint_ip(n), PingPlan::default())?.assert_all_answered()?;
    }
    ensure!(world.pass(&mut node.reconciler)?.operations == 0);
    Ok(())
}

#[test]
fn a_wire_without_a_backup_is_lost_and_found_again_and_nothing_of_the_client_is_touched() -> Result<()> {
    const DEATHS: usize = 5;
    let world = World::new("alone", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("alone-c")?, NetNs::new("alone-e")?);
    let watch = || Watch {
        netns: vec![&world.agent, &client, &endpoint],
        ..Watch::default()
    };
    let before = Leftovers::snapshot(&watch())?;
    let mut node = Node::start(&world)?;
    let mut planned = wire(1, &client, &endpoint)?;
    planned.probe = true;
    all_well(&world.snapshot(&mut node.reconciler, 1, vec![planned.clone()])?)?;
    node.work_for(slow(Duration::from_millis(150)))?;
    // The client pings as ever: nothing that is its own is taken for an answer to the agent.
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    let mut times = Vec::new();
    for _ in 0..DEATHS {
        endpoint.net(|net| net.set_down("nse-1"))?;
        let died = Instant::now();
        ends_at(&mut node, || Ok(()))?;
        times.push(died.elapsed());
        let lost = node.news.pop().context("news of a death")?;
        ensure!(lost.dead.len() == 1 && lost.dead[0].0 == "nse-1", "{lost:?}");
        ensure!(
            lost.unanswered == [(planned.id.clone(), "nse-1".to_owned())],
            "{lost:?}"
        );
        endpoint.net(|net| net.set_up("nse-1"))?;
        // The interface lost what it had; a pass gives it back.
        all_well(&world.pass(&mut node.reconciler)?)?;
        let back = node.work(Instant::now() + slow(Duration::from_secs(3)))?;
        ensure!(back.iter().any(|notice| notice.alive), "{back:?}");
        let found = node.news.pop().context("news of a recovery")?;
        ensure!(found.alive == ["nse-1"], "{found:?}");
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    }
    times.sort();
    println!("lost after {times:?}");
    ensure!(times[DEATHS / 2] <= slow(GOAL), "{times:?}");
    all_well(&world.change(&mut node.reconciler, remove(2, &[&planned.id]))?)?;
    before.assert_same(&watch())
}

/// A wire to `first` with a backup at `spare`, watched, and the node that has it.
fn with_backup<'a>(
    world: &'a World,
    client: &NetNs,
    first: &NetNs,
    spare: &NetNs,
) -> Result<(Node<'a>, Wire)> {
    let mut node = Node::start(world)?;
    let mut planned = wire(1, client, first)?;
    planned.backup = Some(wire(1, client, spare)?.branches.remove(0).circuit);
    planned.probe = true;
    all_well(&world.snapshot(&mut node.reconciler, 1, vec![planned.clone()])?)?;
    node.work_for(slow(Duration::from_millis(150)))?;
    Ok((node, planned))
}

fn leads_to(node: &Node<'_>, netns: &NetNs) -> Result<bool> {
    let view = node.reconciler.wires(None)?.remove(0);
    let there = view.branches[0].endpoint.netns.clone();
    Ok(there.context("a namespace")?.path == netns.path())
}

fn ends_at(node: &mut Node<'_>, dies: impl FnOnce() -> Result<()>) -> Result<()> {
    dies()?;
    let dead = node.work(Instant::now() + slow(Duration::from_secs(2)))?;
    ensure!(dead.iter().any(|notice| !notice.alive), "{dead:?}");
    Ok(())
}

#[test]
fn what_was_switched_stays_so_until_the_plan_says_something_else() -> Result<()> {
    let world = World::new("hold", Backend::Auto)?;
    let [client, first, spare] = ["hold-c", "hold-a", "hold-b"].map(NetNs::new);
    let (client, first, spare) = (client?, first?, spare?);
    let (mut node, mut planned) = with_backup(&world, &client, &first, &spare)?;
    ends_at(&mut node, || first.net(|net| net.set_down("nse-1")))?;
    ensure!(
        node.news
            .iter()
            .any(|news| news.switched == [(planned.id.clone(), "nse-1".to_owned())])
    );
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    // A change that crossed what the node said leads nowhere else.
    planned.mtu = 1300;
    all_well(&world.change(&mut node.reconciler, upsert(2, vec![planned.clone()]))?)?;
    ensure!(leads_to(&node, &spare)?);
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    // The first endpoint answers again, for its interface was repaired: what was decided stays.
    all_well(&world.pass(&mut node.reconciler)?)?;
    let back = node.work(Instant::now() + slow(Duration::from_secs(3)))?;
    ensure!(back.iter().any(|notice| notice.alive), "{back:?}");
    let again = world.snapshot(&mut node.reconciler, 2, vec![planned.clone()])?;
    ensure!(again.failures.is_empty() && leads_to(&node, &spare)?);
    ensure!(world.pass(&mut node.reconciler)?.operations == 0);
    // A plan for the wire that says so leads there.
    all_well(&world.change(&mut node.reconciler, upsert(3, vec![planned]))?)?;
    ensure!(leads_to(&node, &first)?);
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()
}

#[test]
fn an_agent_that_is_killed_after_a_switch_does_not_lead_back_to_the_dead() -> Result<()> {
    let world = World::new("again", Backend::Auto)?;
    let [client, first, spare] = ["again-c", "again-a", "again-b"].map(NetNs::new);
    let (client, first, spare) = (client?, first?, spare?);
    let (mut node, planned) = with_backup(&world, &client, &first, &spare)?;
    ends_at(&mut node, || first.net(|net| net.set_down("nse-1")))?;
    drop(node);
    // Control has not heard of anything.
    let mut node = Node::start(&world)?;
    let outcome = world.snapshot(&mut node.reconciler, 1, vec![planned.clone()])?;
    all_well(&outcome)?;
    ensure!(outcome.news.still_switched.len() == 1, "{outcome:?}");
    ensure!(leads_to(&node, &spare)?);
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    // The spare one has answered the agent before, and not this one: it is missed all the same.
    node.work_for(slow(Duration::from_millis(400)))?;
    drop(node);
    spare.sysctl("ipv4/icmp_echo_ignore_all", "1")?;
    let mut node = Node::start(&world)?;
    let alone = wire(1, &client, &spare)?.branches;
    let alone = Wire {
        branches: alone,
        backup: None,
        ..planned
    };
    all_well(&world.snapshot(&mut node.reconciler, 2, vec![alone.clone()])?)?;
    let began = Instant::now();
    ends_at(&mut node, || Ok(()))?;
    ensure!(began.elapsed() <= slow(GOAL), "{:?}", began.elapsed());
    let lost = node.news.iter().flat_map(|news| &news.unanswered);
    ensure!(lost.count() == 1, "{:?}", node.news);
    Ok(())
}
