//! Endpoints that die under traffic: how long it takes until the wire carries again, or until its client is told that
//! it does not, and how long until an endpoint that registers is reached.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tieline_lab::{EchoStream, NetNs, Responder, ResponderId, UdpPlan, eventually, within};
use tieline_proto::connection::{Connection, State};

use super::{HEAL, HEAL_LOST, Plan};
use crate::{
    report::Collector,
    stop,
    tieline::{Monitor, Node, Wire},
};

/// The endpoint's namespace goes with everything in it; the wire has a backup. To the first answer from there.
pub(super) const GONE: &str = "gone, with a backup";
/// The endpoint answers nothing any more, and nothing else tells of it; the wire has a backup.
pub(super) const SILENT: &str = "silent, with a backup";
/// The same without a backup: to the word on the client's monitor that the wire is DOWN.
pub(super) const DOWN: &str = "silent, to DOWN";
/// An endpoint registers for a wire that has none: to the first answer.
pub(super) const HEALED: &str = "registered, to healed";

const SERVICE: &str = "bench-heal";
const WIRE: &str = "bench-heal";
const PORT: u16 = 7007;
/// Deaths of each kind in a round.
const EACH_ROUND: u32 = 4;
const LIMIT: Duration = Duration::from_secs(10);
/// The kernel answers no echo request then.
const ECHO_IGNORED: &str = "ipv4/icmp_echo_ignore_all";
/// Answers that show that the wire carries.
const ENOUGH: u64 = 20;

/// Measures each kind of death by turns on one wire.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    let mut stage = Stage::build(&plan.attach)?;
    for attempt in 0..plan.rounds * plan.enough(EACH_ROUND, 1) {
        eprintln!("healing, attempt {}", attempt + 1);
        stop::check()?;
        stage.refresh()?;
        let mut time = |path, took: Duration| {
            collector.add(path, HEAL, None, attempt, took.as_secs_f64() * 1e3);
        };
        let (gone, lost_gone) = stage.with_backup(Death::Gone).context(GONE)?;
        time(GONE, gone);
        let (silent, lost_silent) = stage.with_backup(Death::Silent).context(SILENT)?;
        time(SILENT, silent);
        let (down, healed, lost_without) = stage.without_backup().context(DOWN)?;
        time(DOWN, down);
        time(HEALED, healed);
        for (path, lost) in [(GONE, lost_gone), (SILENT, lost_silent), (HEALED, lost_without)] {
            collector.add(path, HEAL_LOST, None, attempt, lost as f64);
        }
    }
    stage.node.stop()
}

/// How an endpoint ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// With its namespace.
    Gone,
    /// As a machine that stands still: neither its programs nor its kernel answer.
    Silent,
}

struct Server {
    name: &'static str,
    netns: NetNs,
    responder: Responder,
}

/// What is left of a server.
struct Dead {
    name: &'static str,
    netns: Option<NetNs>,
    since: Instant,
}

/// A wire and two endpoints, of which now one and now the other dies.
struct Stage {
    node: Node,
    client: NetNs,
    wire: Wire,
    servers: Vec<Server>,
    monitor: Monitor,
}

impl Stage {
    fn build(attach: &str) -> Result<Self> {
        let (node, client) = (Node::start(attach)?, NetNs::new("bench-c")?);
        node.control().declare_service(SERVICE, "10.204.0.0/16")?;
        let mut servers = Vec::new();
        for name in ["bench-one", "bench-two"] {
            servers.push(serve(&node, name, NetNs::new("bench-s")?)?.0);
        }
        let wire = node.api().request(WIRE, SERVICE, &client)?;
        let monitor = Monitor::start(&node.agent_socket())?;
        Ok(Self {
            node,
            client,
            wire,
            servers,
            monitor,
        })
    }

    fn refresh(&self) -> Result<()> {
        self.node.api().request(WIRE, SERVICE, &self.client).map(drop)
    }

    /// From a death to the first answer of the other endpoint, and how many datagrams were lost.
    fn with_backup(&mut self, death: Death) -> Result<(Duration, u64)> {
        eventually(LIMIT, "a backup to be known", || {
            Ok(!self.node.control().connection(WIRE)?.backup.is_empty())
        })?;
        let stream = self.stream()?;
        let dead = self.kill(death)?;
        let heir = self.servers.first().context("no other endpoint")?.responder.id();
        self.wait_for(&stream, heir)?;
        let healed = healed(stream, heir, dead.since)?;
        self.revive(dead)?;
        Ok(healed)
    }

    /// From the death of the only endpoint to the word that the wire is DOWN; and from the registration of another one to
    /// its first answer, with how many datagrams were lost in all.
    fn without_backup(&mut self) -> Result<(Duration, Duration, u64)> {
        let serving = self.serving()?;
        let other = self.servers.iter().position(|server| server.name != serving);
        let spare = self.servers.swap_remove(other.context("no other endpoint")?).name;
        self.node.api().unregister(spare)?;
        let stream = self.stream()?;
        let dead = self.kill(Death::Silent)?;
        let down = within(LIMIT, "the word that the wire is DOWN", || {
            let is_down = |one: &Connection| one.state() == State::Down;
            Ok(self.monitor.heard_since(dead.since, WIRE, is_down))
        })?;
        let (server, registered) = serve(&self.node, spare, NetNs::new("bench-s")?)?;
        let heir = server.responder.id();
        self.servers.push(server);
        self.wait_for(&stream, heir)?;
        let (took, lost) = healed(stream, heir, registered)?;
        let down = down - dead.since;
        self.revive(dead)?;
        Ok((down, took, lost))
    }

    /// Sends, and waits until the wire is seen to carry.
    fn stream(&self) -> Result<EchoStream> {
        let to = SocketAddr::from((self.wire.endpoint, PORT));
        let stream = EchoStream::start(&self.client, to, UdpPlan::default())?;
        eventually(LIMIT, "the wire to carry", || Ok(stream.answered() >= ENOUGH))?;
        Ok(stream)
    }

    fn wait_for(&self, stream: &EchoStream, heir: ResponderId) -> Result<()> {
        let outcome = eventually(LIMIT, "the other endpoint to answer", || {
            Ok(stream.answered_by(heir) >= ENOUGH)
        });
        outcome.with_context(|| format!("the node says: {}", self.node.log()))
    }

    /// Which endpoint the wire leads to.
    fn serving(&self) -> Result<String> {
        let status = self.node.control().connection(WIRE)?;
        let branch = status.branches.into_iter().next().context("the wire is parked")?;
        branch.path.into_iter().last().context("a path has an end")
    }

    /// The server that the wire leads to dies.
    fn kill(&mut self, death: Death) -> Result<Dead> {
        let serving = self.serving()?;
        let found = self.servers.iter().position(|server| server.name == serving);
        let Server {
            name,
            netns,
            responder,
        } = self
            .servers
            .swap_remove(found.context("the wire leads to a stranger")?);
        let netns = match death {
            Death::Gone => None,
            Death::Silent => {
                netns.sysctl(ECHO_IGNORED, "1")?;
                Some(netns)
            }
        };
        let since = responder.die();
        Ok(Dead { name, netns, since })
    }

    /// A server that died serves again, where it was if that is there.
    fn revive(&mut self, dead: Dead) -> Result<()> {
        let netns = match dead.netns {
            Some(netns) => {
                netns.sysctl(ECHO_IGNORED, "0")?;
                netns
            }
            None => NetNs::new("bench-s")?,
        };
        self.servers.push(serve(&self.node, dead.name, netns)?.0);
        Ok(())
    }
}

/// Answers in a namespace and registers it; since when.
fn serve(node: &Node, name: &'static str, netns: NetNs) -> Result<(Server, Instant)> {
    let responder = Responder::start(&netns, PORT)?;
    let registered = Instant::now();
    node.api().register(SERVICE, name, &netns, &[])?;
    let server = Server {
        name,
        netns,
        responder,
    };
    Ok((server, registered))
}

/// From a moment to the first answer of an endpoint, and how many datagrams were lost.
fn healed(stream: EchoStream, heir: ResponderId, since: Instant) -> Result<(Duration, u64)> {
    let report = stream.finish()?;
    let first = report
        .first_by(heir)
        .context("no answer from the other endpoint")?;
    let lost = report.datagrams.lost + report.datagrams.send_errors;
    Ok((first.saturating_duration_since(since), lost))
}
