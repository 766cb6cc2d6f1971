//! The node and the commands given to it: this very program, started again.

use std::{
    env,
    io::Write as _,
    net::IpAddr,
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use tieline_lab::{NetNs, PingPlan, Process, eventually, log_to, ping, slow, within};

use super::{report::Report, stage::Stage};

/// The NetworkService of the demonstration.
pub(crate) const SERVICE: &str = "gold-network";
const ENDPOINT: &str = "vpngateway";
/// The client's interface.
const INTERFACE: &str = "nsm-1";

/// What is declared: addresses of both families from the prefixes for documentation (RFC 5737, RFC 3849).
const SERVICE_YAML: &str = include_str!("gold-network.yaml");

/// Longest wait for the node to be ready, and to stop.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Interfaces of a closed wire go at once; this is for slow machines.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// A running node; its process ends with the guard.
pub(crate) struct Node<'a> {
    stage: &'a Stage,
    program: PathBuf,
    process: Process,
}

/// The vWire that was made.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The connection's id.
    pub(crate) id: String,
    /// The interface in the client's namespace.
    pub(crate) client_interface: String,
    /// The interface in the endpoint's namespace.
    pub(crate) endpoint_interface: String,
    /// The client's addresses, IPv4 and IPv6.
    pub(crate) client: Vec<IpAddr>,
    /// The endpoint's addresses, in the same order.
    pub(crate) endpoint: Vec<IpAddr>,
}

/// What `tieline request -o json` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Requested {
    id: String,
    interface: String,
    src_ip_addrs: Vec<String>,
    dst_ip_addrs: Vec<String>,
}

/// What `tieline get wires -o json` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
pub(crate) struct WireCounts {
    pub(crate) client: EndCounts,
    branches: Vec<BranchCounts>,
}

/// Where it leads.
#[derive(Debug, Deserialize)]
struct BranchCounts {
    endpoint: EndCounts,
}

/// One end of it.
#[derive(Debug, Deserialize)]
pub(crate) struct EndCounts {
    workload_interface: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl WireCounts {
    /// The endpoint's end.
    pub(crate) fn endpoint(&self) -> Result<&EndCounts> {
        let branch = self.branches.first();
        branch
            .map(|branch| &branch.endpoint)
            .context("the wire leads nowhere")
    }
}

impl<'a> Node<'a> {
    /// Starts `tieline up` in the node's namespace and waits for its word that it is ready.
    pub(crate) fn start(stage: &'a Stage, report: &mut Report) -> Result<Self> {
        let program = env::current_exe().context("find this program")?;
        let begin = Instant::now();
        let notify = stage.folder().join("notify");
        let socket =
            UnixDatagram::bind(&notify).with_context(|| format!("listen at {}", notify.display()))?;
        socket.set_nonblocking(true)?;
        let mut command = Command::new(&program);
        let folder = stage.folder().display().to_string();
        let bpffs = stage.bpffs.path().display().to_string();
        let arguments = [
            "up",
            "--node",
            "demo",
            "--state-dir",
            &format!("{folder}/state"),
            "--bpffs",
            &bpffs,
        ];
        command
            .args(arguments)
            .arg("--run-dir")
            .arg(stage.folder().join("run"))
            .env("NOTIFY_SOCKET", &notify);
        // Ctrl-C at the terminal is for the demonstration, which then stops the node itself.
        command.process_group(0);
        log_to(&mut command, &stage.log())?;
        report.command(&format!(
            "tieline up --node demo --run-dir {folder}/run --state-dir … --bpffs {bpffs}"
        ))?;
        let mut process = stage.node.spawn(command)?;
        within(START_LIMIT, "the node to be ready", || {
            if let Some(status) = process.try_wait()? {
                anyhow::bail!("the node ended ({status})");
            }
            Ok(is_ready(&socket).then_some(()))
        })?;
        report.step("node", "control and agent are ready", Some(begin.elapsed()))?;
        Ok(Self {
            stage,
            program,
            process,
        })
    }

    /// Service, endpoint, client: a vWire. Returns when the first packet has gone there and back.
    pub(crate) fn connect(&self, report: &mut Report) -> Result<Wire> {
        let (laptop, gateway) = (self.stage.laptop.name(), self.stage.gateway.name());
        self.run(&["apply", "-f", "-"], SERVICE_YAML, report)?;
        self.run(
            &[
                "register",
                "--service",
                SERVICE,
                "--name",
                ENDPOINT,
                "--netns",
                gateway,
            ],
            "",
            report,
        )?;
        let request = ["request", SERVICE, "--netns", laptop, "--interface", INTERFACE];
        let begin = Instant::now();
        let answer: Requested = self.ask(&request, report)?;
        let (client, endpoint) = (addresses(&answer.src_ip_addrs)?, addresses(&answer.dst_ip_addrs)?);
        let target = *endpoint.first().context("the endpoint has no address")?;
        let first = PingPlan {
            count: 1,
            interval: Duration::ZERO,
            ..PingPlan::default()
        };
        ping(&self.stage.laptop, target, first)?.assert_all_answered()?;
        let took = begin.elapsed();
        ensure!(
            client.len() == 2 && endpoint.len() == 2,
            "an address of each family was expected: {answer:?}"
        );
        let detail = format!(
            "{} ↔ {}",
            answer.src_ip_addrs.join(" "),
            answer.dst_ip_addrs.join(" ")
        );
        report.step("vWire", &format!("{SERVICE} by {ENDPOINT}: {detail}"), Some(took))?;
        let counts = self.counts(&answer.id)?;
        Ok(Wire {
            id: answer.id,
            client_interface: answer.interface,
            endpoint_interface: counts.endpoint()?.workload_interface.clone(),
            client,
            endpoint,
        })
    }

    /// The kernel's counters of the wire, as the command shows them.
    pub(crate) fn counts(&self, id: &str) -> Result<WireCounts> {
        let output = self.output(&["get", "wires", id, "-o", "json"], "")?;
        let wires: Vec<WireCounts> = parse(&output)?;
        wires
            .into_iter()
            .next()
            .context("the node does not know the wire")
    }

    /// Closes the wire, and makes sure that both interfaces are gone.
    pub(crate) fn close(&self, wire: &Wire, report: &mut Report) -> Result<()> {
        let begin = Instant::now();
        self.run(&["close", &wire.id], "", report)?;
        let ends = [
            (&self.stage.laptop, &wire.client_interface),
            (&self.stage.gateway, &wire.endpoint_interface),
        ];
        for (netns, interface) in ends {
            eventually(GONE_LIMIT, &format!("{interface} to be gone"), || {
                is_gone(netns, interface)
            })?;
        }
        let left: Vec<serde_json::Value> = parse(&self.output(&["get", "connections", "-o", "json"], "")?)?;
        ensure!(left.is_empty(), "connections are left after the close: {left:?}");
        report.step(
            "closed",
            "both interfaces and the connection are gone",
            Some(begin.elapsed()),
        )
    }

    /// Ends the node in order.
    pub(crate) fn stop(mut self, report: &mut Report) -> Result<()> {
        let begin = Instant::now();
        let status = self.process.stop(slow(STOP_LIMIT))?;
        ensure!(status.success(), "the node ended with {status}");
        report.step("node", "stopped in order", Some(begin.elapsed()))
    }

    /// A command whose answer is not needed.
    fn run(&self, arguments: &[&str], stdin: &str, report: &mut Report) -> Result<()> {
        report.command(&shown(arguments))?;
        self.output(arguments, stdin).map(drop)
    }

    /// A command whose answer is.
    fn ask<T: DeserializeOwned>(&self, arguments: &[&str], report: &mut Report) -> Result<T> {
        report.command(&shown(arguments))?;
        parse(&self.output(&[arguments, &["-o", "json"]].concat(), "")?)
    }

    fn output(&self, arguments: &[&str], stdin: &str) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--run-dir")
            .arg(self.stage.folder().join("run"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = self.stage.node.run(move || {
            let mut child = command.spawn()?;
            child
                .stdin
                .take()
                .context("standard input is piped")?
                .write_all(stdin.as_bytes())?;
            Ok(child.wait_with_output()?)
        })?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{}` ended with {}: {}",
            shown(arguments),
            output.status,
            errors.trim()
        );
        Ok(output.stdout)
    }
}

fn shown(arguments: &[&str]) -> String {
    format!("tieline {}", arguments.join(" "))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).with_context(|| format!("read {:?}", String::from_utf8_lossy(json)))
}

/// Whether the service manager's socket has received `READY=1`.
fn is_ready(socket: &UnixDatagram) -> bool {
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        if text.lines().any(|line| line == "READY=1") {
            return true;
        }
    }
    false
}

fn is_gone(netns: &NetNs, interface: &str) -> Result<bool> {
    Ok(netns.net(|net| net.find(interface))?.is_none())
}

/// `192.0.2.0/32` without its length.
fn addresses(texts: &[String]) -> Result<Vec<IpAddr>> {
    let mut addresses = texts
        .iter()
        .map(|text| {
            text.parse::<ipnet::IpNet>()
                .map(|net| net.addr())
                .with_context(|| format!("read {text:?}"))
        })
        .collect::<Result<Vec<_>>>()?;
    addresses.sort();
    Ok(addresses)
}
