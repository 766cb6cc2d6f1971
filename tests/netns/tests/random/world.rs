//! The node that the intents are given to, and all that can be seen of it.

use std::{collections::BTreeSet, fs, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::abi::HopKind;
use ipnet::IpNet;
use tieline_lab::{Leftovers, Net, NetNs, PingPlan, Watch, eventually, ping, slow};
use tieline_proto::connection::{Connection, State};
use tieline_tests_netns::{Api, Attested, Call, Mode, Node, endpoint, let_route, netns_url, request};

use super::intent::{ENDPOINTS, Intent, ROLES, SERVICES, Workloads, declared};

/// Longer than anything lingers that is no longer wanted.
const LINGER: Duration = Duration::from_millis(600);

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) api: Api,
    pub(crate) workloads: Workloads,
    before: Leftovers,
    /// The agent reads it.
    _attested: Attested,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        let mut attested = Attested::new()?;
        let path = attested.path();
        let path = path.to_str().context("a path in UTF-8")?;
        let node = Node::start_with("random", Mode::Apart, &["--workloads", path])?;
        let clients = (0..4).map(|_| NetNs::new("client")).collect::<Result<_>>()?;
        let server = |role: &&str| {
            let netns = NetNs::new(role)?;
            attested.say(&netns, &format!("app: {role}"))?;
            let_route(&netns)?;
            Ok(netns)
        };
        let servers = ROLES.iter().map(server).collect::<Result<_>>()?;
        let world = |before| Self {
            api: node.api(),
            node,
            workloads: Workloads { clients, servers },
            before,
            _attested: attested,
        };
        let mut world = world(Leftovers::snapshot(&Watch::default())?);
        world.before = Leftovers::snapshot(&world.watch())?;
        Ok(world)
    }

    pub(crate) fn intend(&self, intent: &Intent) -> Call<()> {
        intent.carry_out(&self.api, &self.workloads)
    }

    fn namespaces(&self) -> impl Iterator<Item = &NetNs> {
        [self.node.netns()]
            .into_iter()
            .chain(&self.workloads.clients)
            .chain(&self.workloads.servers)
    }

    fn watch(&self) -> Watch<'_> {
        self.namespaces()
            .fold(Watch::default().dir(self.node.bpffs().path()), Watch::interfaces)
    }

    pub(crate) fn connections(&self) -> Result<Vec<Connection>> {
        let all = self.api.connections()?.into_iter();
        Ok(all.filter_map(|status| status.connection).collect())
    }

    /// Everything that can be seen when nothing is under way: the node's interfaces, which of them leads to which, and
    /// what is set up in each workload's namespace.
    pub(crate) fn settled(&mut self) -> Result<BTreeSet<String>> {
        self.node.wait_until_ready()?;
        thread::sleep(slow(LINGER));
        let kernel = self.node.kernel()?;
        let name = |index: u32| kernel.interfaces.get(&index).map_or("-", |link| &*link.name);
        let mut lines = BTreeSet::new();
        for link in kernel.interfaces.values() {
            // The hardware address of a host end is nobody's business: the kernel draws it.
            let (name, kind, mtu, up, alias) = (&link.name, &link.kind, link.mtu, link.up, &link.alias);
            lines.insert(format!("node: {name} {kind} mtu {mtu} up {up} alias {alias:?}"));
        }
        for (index, position) in &kernel.positions {
            let next = position.next;
            let to = match next.kind() {
                HopKind::Split => "where its flows go",
                HopKind::None | HopKind::Parked => "nowhere",
                HopKind::Peer | HopKind::Egress => name(next.ifindex),
            };
            lines.insert(format!("node: {} leads to {to}", name(*index)));
        }
        for netns in self.workloads.clients.iter().chain(&self.workloads.servers) {
            let there = netns.setup()?.into_iter();
            lines.extend(there.map(|line| format!("{}: {line}", netns.name())));
        }
        Ok(lines)
    }

    /// Fails unless each connection that is up carries, and none has another one's address.
    pub(crate) fn assert_carries(&self) -> Result<()> {
        let mut given = BTreeSet::new();
        let connections = self.connections()?;
        for connection in connections.iter().filter(|one| one.state() == State::Up) {
            let mechanism = connection.mechanism.clone().unwrap_or_default();
            let url = mechanism.parameters.get("inodeURL").cloned().unwrap_or_default();
            let client = self
                .workloads
                .clients
                .iter()
                .find(|netns| netns_url(netns) == url);
            let client = client.with_context(|| format!("no client of ours: {connection:?}"))?;
            let context = connection
                .context
                .clone()
                .unwrap_or_default()
                .ip_context
                .unwrap_or_default();
            for text in context.src_ip_addrs.iter().chain(&context.dst_ip_addrs) {
                ensure!(given.insert(text.clone()), "{text} was given out twice");
            }
            let plan = PingPlan {
                count: 1,
                ..PingPlan::default()
            };
            for text in &context.dst_ip_addrs {
                let far: IpAddr = text.parse::<IpNet>()?.addr();
                ping(client, far, plan)?
                    .assert_all_answered()
                    .with_context(|| format!("{} to {far}", connection.id))?;
            }
        }
        Ok(())
    }

    /// Ends the processes and takes away all that the kernel has of the node: interfaces and pins.
    pub(crate) fn wipe(&mut self) -> Result<()> {
        self.node.kill_agent()?;
        self.node.kill_control()?;
        self.node.netns().net(|net| {
            for link in net
                .links()?
                .into_iter()
                .filter(|link| link.alias.starts_with("tieline/"))
            {
                net.delete(&link.name)?;
            }
            Ok(())
        })?;
        for netns in self.workloads.clients.iter().chain(&self.workloads.servers) {
            let left = netns.net(Net::links)?.len() - 1;
            ensure!(
                left == 0,
                "{} has {left} interfaces that are not of the node",
                netns.name()
            );
        }
        let pins = self.node.pins();
        fs::remove_dir_all(&pins).with_context(|| format!("remove {}", pins.display()))
    }

    /// Takes back every intent, and fails unless everything is as before the first one, and every address can be given
    /// out again.
    pub(crate) fn take_everything_back(self) -> Result<()> {
        self.close_all()?;
        for name in self.api.wirings()? {
            self.api.delete("NetworkServiceWiring", &name)?;
        }
        self.give_out_every_address()?;
        self.close_all()?;
        for name in self.api.endpoints()? {
            self.api.delete("NetworkServiceEndpoint", &name)?;
        }
        for (name, _) in SERVICES {
            match self.api.delete("NetworkService", name) {
                Err(status) if status.code() != tonic::Code::NotFound => return Err(status.into()),
                _ => {}
            }
        }
        let status = self.api.status()?;
        let left = status.connections + status.endpoints + status.network_services;
        ensure!(left == 0, "control still lists something: {status:?}");
        self.before.assert_same_objects(&self.watch())
    }

    fn close_all(&self) -> Result<()> {
        for connection in self.connections()? {
            self.api.close(connection)?;
        }
        eventually(Duration::from_secs(5), "all positions to go", || {
            Ok(self.node.kernel()?.positions.is_empty())
        })
    }

    /// The small service gives out as many pairs as its prefix holds: none of them was lost on the way.
    fn give_out_every_address(&self) -> Result<()> {
        // Of 16 addresses, that of the network and the broadcast address are not given out.
        const PAIRS: usize = 7;
        self.api.apply(declared(0, 0))?;
        let (name, url) = (SERVICES[0].0, netns_url(&self.workloads.clients[0]));
        self.api.register(endpoint(
            &format!("endpoint-{ENDPOINTS}"),
            name,
            &netns_url(&self.workloads.servers[0]),
        ))?;
        for number in 0..PAIRS {
            self.api
                .request(request(&format!("every-{number}"), name, &url))
                .with_context(|| format!("pair {number} of {PAIRS}"))?;
        }
        let more = self.api.request(request("one-more", name, &url));
        ensure!(more.is_err(), "more addresses than there are: {more:?}");
        Ok(())
    }
}
