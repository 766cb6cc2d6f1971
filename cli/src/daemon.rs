//! The long-running commands: `up`, `agent`, `control`.
//!
//! `up` is control and agent in one process; the agent dials control's socket as it would from another machine.

mod bpffs;
mod config;
mod error;
mod http;
mod lifecycle;
mod notify;
mod parts;
mod start;

use std::{fs, io, path::Path};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

pub(crate) use config::{AgentArgs, CommonArgs, ControlArgs, NodeArgs, PlaneArgs, UpArgs, host_name};
pub(crate) use error::DaemonError;

use crate::{
    args::Global,
    check,
    error::Failure,
    exit::Exit,
    output::{self, Format},
    signals::Signals,
};

/// Whether a BPF file system is mounted there.
pub(crate) fn bpffs_is_mounted(path: &Path) -> Result<bool, io::Error> {
    bpffs::is_mounted(path)
}

/// Everything that a daemon was told: what `--print-config` shows.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    run_dir: &'a Path,
    socket: String,
    control: String,
    #[serde(flatten)]
    common: &'a CommonArgs,
    #[serde(flatten)]
    node: Option<&'a NodeArgs>,
    #[serde(flatten)]
    plane: Option<&'a PlaneArgs>,
}

/// Runs a whole node.
pub(crate) fn up(global: &Global, args: UpArgs) -> Result<Exit, Failure> {
    let UpArgs { node, plane, common } = args;
    run(global, &common, Some(&node), Some(&plane))
}

/// Runs the agent.
pub(crate) fn agent(global: &Global, args: AgentArgs) -> Result<Exit, Failure> {
    let AgentArgs { node, common } = args;
    run(global, &common, Some(&node), None)
}

/// Runs control.
pub(crate) fn control(global: &Global, args: ControlArgs) -> Result<Exit, Failure> {
    let ControlArgs { plane, common } = args;
    run(global, &common, None, Some(&plane))
}

fn run(
    global: &Global,
    common: &CommonArgs,
    node: Option<&NodeArgs>,
    plane: Option<&PlaneArgs>,
) -> Result<Exit, Failure> {
    if common.print_config {
        return print(global, common, node, plane);
    }
    let outcome = runtime()?.block_on(async {
        let signals = Signals::new().map_err(DaemonError::Runtime)?;
        prepare(global, common, node)?;
        let listener = match common.http.0 {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let mut started = start::Started::default();
        if let Some(plane) = plane {
            started.control(global, common, plane).await?;
        }
        if let Some(node) = node {
            started.agent(global, common, node)?;
        }
        lifecycle::run(started.running, started.parts, listener, signals).await
    });
    Ok(outcome?)
}

fn print(
    global: &Global,
    common: &CommonArgs,
    node: Option<&NodeArgs>,
    plane: Option<&PlaneArgs>,
) -> Result<Exit, Failure> {
    let settings = Settings {
        run_dir: &global.run_dir,
        socket: global.agent_address()?.to_string(),
        control: global.control_address()?.to_string(),
        common,
        node,
        plane,
    };
    let format = if global.output == Format::Table {
        Format::Yaml
    } else {
        global.output
    };
    output::object(format, &settings, String::new)?;
    Ok(Exit::Ok)
}

/// What must be there before anything starts. Only folders are made, and the bpffs if the operator said so.
fn prepare(global: &Global, common: &CommonArgs, node: Option<&NodeArgs>) -> Result<(), DaemonError> {
    if let Some(node) = node {
        bpffs::ensure(&node.bpffs, node.mount_bpffs)?;
        let missing = check::missing_capabilities().map_err(DaemonError::Runtime)?;
        if !missing.is_empty() {
            return Err(DaemonError::Capabilities { missing });
        }
    }
    for (path, flag) in [(&global.run_dir, "--run-dir"), (&common.state_dir, "--state-dir")] {
        let failed = |source| DaemonError::Folder {
            path: path.clone(),
            flag,
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
    }
    Ok(())
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("tieline")
        .build()
        .map_err(Failure::Runtime)
}
