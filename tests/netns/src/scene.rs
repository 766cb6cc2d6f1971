//! What every scenario is made of: one node, its workloads, and the proof that nothing remains.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{Leftovers, Net, NetNs, Responder, Watch, eventually};
use tieline_proto::{registry::NetworkServiceEndpoint, tieline::admin::v1::NetworkService};

use crate::{Api, Mode, Node, Wire, endpoint, netns_url, request};

/// Where servers answer.
pub const PORT: u16 = 7007;

/// A workload that serves: registered, and answering at [`PORT`] in both families.
#[derive(Debug)]
pub struct Server {
    /// Its namespace.
    pub netns: NetNs,
    /// What it is registered by.
    pub registered: NetworkServiceEndpoint,
    /// Who answers.
    pub responder: Responder,
}

impl Server {
    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.registered.name
    }
}

/// A node and what it had before the scenario began. If the scenario fails, the node's logs are printed.
#[derive(Debug)]
pub struct Scene {
    /// The node.
    pub node: Node,
    /// Calls to it.
    pub api: Api,
    before: Leftovers,
    over: bool,
}

impl Scene {
    /// Starts a node.
    pub fn start(label: &str, mode: Mode) -> Result<Self> {
        Self::start_with(label, mode, &[])
    }

    /// The same with more arguments for the agent's half.
    pub fn start_with(label: &str, mode: Mode, arguments: &[&str]) -> Result<Self> {
        Self::of(Node::start_with(label, mode, arguments)?)
    }

    /// A scene on a node that was just started.
    pub fn of(node: Node) -> Result<Self> {
        Ok(Self {
            api: node.api(),
            before: Leftovers::snapshot(&watch(&node))?,
            node,
            over: false,
        })
    }

    /// A service with a server, which is called `NAME`, for each of `servers`.
    pub fn serve<const N: usize>(&self, service: NetworkService, servers: [&str; N]) -> Result<[Server; N]> {
        let name = service.service.clone().unwrap_or_default().name;
        self.api.apply(service)?;
        let servers = servers.map(|server| self.add_server(server, |netns| endpoint(server, &name, netns)));
        let servers: Vec<Server> = servers.into_iter().collect::<Result<_>>()?;
        servers.try_into().ok().context("as many servers as names")
    }

    /// A server more, registered by what `form` makes of the URL of its namespace.
    pub fn add_server(
        &self,
        label: &str,
        form: impl FnOnce(&str) -> NetworkServiceEndpoint,
    ) -> Result<Server> {
        self.serve_in(NetNs::new(label)?, form)
    }

    /// The same in a namespace that is there.
    pub fn serve_in(
        &self,
        netns: NetNs,
        form: impl FnOnce(&str) -> NetworkServiceEndpoint,
    ) -> Result<Server> {
        let responder = Responder::start(&netns, PORT)?;
        let registered = self.api.register(form(&netns_url(&netns)))?;
        Ok(Server {
            netns,
            registered,
            responder,
        })
    }

    /// A wire for `client`.
    pub fn connect(&self, client: &NetNs, id: &str, service: &str) -> Result<Wire> {
        Wire::request(&self.api, request(id, service, &netns_url(client)))
            .with_context(|| format!("connect {id} to {service}"))
    }

    /// Closes every connection, and fails unless nothing remains of them anywhere: in the workloads' namespaces, which
    /// go now, on the node, in its tables, at control, among the processes.
    pub fn finish(self, namespaces: impl IntoIterator<Item = NetNs>) -> Result<()> {
        Self::finish_all([self], namespaces)
    }

    /// The same for several nodes, in the order in which they were started, whose agents run.
    pub fn finish_all(
        scenes: impl IntoIterator<Item = Self>,
        namespaces: impl IntoIterator<Item = NetNs>,
    ) -> Result<()> {
        let mut scenes: Vec<Self> = scenes.into_iter().collect();
        for scene in &scenes {
            for status in scene.api.connections()? {
                scene.api.close(status.connection.unwrap_or_default())?;
            }
        }
        let namespaces: Vec<NetNs> = namespaces.into_iter().collect();
        eventually(Duration::from_secs(5), "every interface to go", || {
            let mut left = 0;
            for scene in &scenes {
                left += scene.node.kernel()?.positions.len();
            }
            for netns in &namespaces {
                left += netns.net(Net::links)?.len() - 1;
            }
            Ok(left == 0)
        })?;
        drop(namespaces);
        // The last one goes first: what it is made of was not there when the others were started.
        while let Some(mut scene) = scenes.pop() {
            let connections = scene.api.connections()?;
            ensure!(connections.is_empty(), "connections are left: {connections:?}");
            scene.before.assert_same_objects(&watch(&scene.node))?;
            scene.over = true;
        }
        Ok(())
    }
}

fn watch(node: &Node) -> Watch<'_> {
    Watch::default().interfaces(node.netns()).dir(node.bpffs().path())
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A panic makes the node print them.
        if !self.over && !std::thread::panicking() {
            eprintln!("{}", self.node.logs());
        }
    }
}
