//! Starts the two halves, each as a task with a token that ends it.

use std::fmt::Write as _;

use dataplane_user::{
    agent::{self, Agent, AgentHandle},
    loader::Backend,
};
use tieline_control::{Control, ControlHandle, Readiness, StoreConfig};
use tieline_model::Lease;
use tokio_util::sync::CancellationToken;

use super::{
    CommonArgs, DaemonError, NodeArgs, PlaneArgs,
    config::{Attach, Store},
    parts::{Part, Running},
};
use crate::{args::Global, client::Address};

/// The parts that were started, in the order of their start.
#[derive(Default)]
pub(crate) struct Started {
    /// To be stopped.
    pub(crate) running: Vec<Running>,
    /// To be asked.
    pub(crate) parts: Vec<Box<dyn Part>>,
}

impl Started {
    /// Starts control; it has its addresses and its state when this returns.
    pub(crate) async fn control(
        &mut self,
        global: &Global,
        common: &CommonArgs,
        plane: &PlaneArgs,
    ) -> Result<(), DaemonError> {
        let control = Control::start(control_config(global, common, plane)?).await?;
        self.parts.push(Box::new(control.handle()));
        let stop = CancellationToken::new();
        let cancel = stop.clone();
        let task = tokio::spawn(async move { Ok(control.serve(cancel).await?) });
        self.running.push(Running {
            name: "control",
            stop,
            task,
        });
        Ok(())
    }

    /// Starts the agent; it becomes ready by and by.
    pub(crate) fn agent(
        &mut self,
        global: &Global,
        common: &CommonArgs,
        node: &NodeArgs,
    ) -> Result<(), DaemonError> {
        let (agent, handle) = Agent::new(agent_config(global, common, node)?)?;
        self.parts.push(Box::new(handle));
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        let task = tokio::spawn(async move { Ok(agent.run(shutdown).await?) });
        self.running.push(Running {
            name: "agent",
            stop,
            task,
        });
        Ok(())
    }
}

fn control_config(
    global: &Global,
    common: &CommonArgs,
    plane: &PlaneArgs,
) -> Result<tieline_control::Config, DaemonError> {
    let mut config =
        tieline_control::Config::new().map_err(|refusal| DaemonError::Defaults(refusal.to_string()))?;
    match global.control_address()? {
        Address::Unix(path) => config.unix = Some(path),
        Address::Tcp(host) => {
            let address = host.parse().map_err(|_| DaemonError::ListenName { host })?;
            config.unix = Some(global.run_dir.join("control.sock"));
            config.tcp = Some(address);
        }
    }
    config.store = match plane.store {
        Store::Redb => StoreConfig::Redb(common.state_dir.join("control.redb")),
        Store::Memory => StoreConfig::Memory,
    };
    let millis = u64::try_from(plane.node_lease.as_millis()).unwrap_or(u64::MAX);
    config.registry.node_lease = Lease::from_millis(millis);
    config.registry.domain.clone_from(&plane.domain);
    config.peers.clone_from(&plane.peers);
    if !plane.prefixes.is_empty() {
        config.registry.default_prefixes.clone_from(&plane.prefixes);
    }
    Ok(config)
}

fn agent_config(global: &Global, common: &CommonArgs, node: &NodeArgs) -> Result<agent::Config, DaemonError> {
    let Address::Unix(socket) = global.agent_address()? else {
        return Err(DaemonError::AgentSocket);
    };
    Ok(agent::Config {
        socket,
        control: global
            .control_address()?
            .to_string()
            .parse()
            .map_err(agent::AgentError::from)?,
        bpffs: node.bpffs.clone(),
        state_dir: common.state_dir.join("agent"),
        max_wires: node.max_wires,
        attach: match node.attach {
            Attach::Auto => Backend::Auto,
            Attach::Tcx => Backend::Tcx,
            Attach::Clsact => Backend::Clsact,
        },
        event_sample: node.event_sample,
        resync_interval: node.resync_interval,
        workloads: node.workloads.clone(),
        pod_metadata: node.pod_metadata.clone(),
        ..agent::Config::new(&node.node)
    })
}

impl Part for ControlHandle {
    fn name(&self) -> &'static str {
        "control"
    }

    fn readiness(&self) -> Result<(), String> {
        match self.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::NotReady(reason) => Err(reason),
        }
    }

    fn render_metrics(&self, into: &mut String) {
        self.render_metrics(into);
    }
}

impl Part for AgentHandle {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn readiness(&self) -> Result<(), String> {
        let missing = self.readiness().into_iter().filter(|part| !part.ready);
        let reasons = missing
            .map(|part| format!("{}: {}", part.name, part.detail))
            .collect::<Vec<_>>();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons.join("; "))
        }
    }

    fn render_metrics(&self, into: &mut String) {
        if self.render_metrics(into).is_err() {
            // Writing to a string fails only when a value cannot be formatted.
            let _ = writeln!(into, "# the agent's metrics could not be written");
        }
    }
}
