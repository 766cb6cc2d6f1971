//! The node and the commands given to it: this very program, started again.

use std::{
    env, fs,
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

/// What is declared first: addresses of both families from the prefixes for documentation (RFC 5737, RFC 3849).
pub(crate) const SERVICE_YAML: (&str, &str) = (
    "service.yaml",
    include_str!("../../../docs/examples/gold-network/service.yaml"),
);

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
    pub(crate) branches: Vec<BranchCounts>,
}

/// Where it leads.
#[derive(Debug, Deserialize)]
pub(crate) struct BranchCounts {
    pub(crate) hops: Vec<HopCounts>,
    pub(crate) endpoint_name: String,
    pub(crate) endpoint: EndCounts,
}

/// A function on the way.
#[derive(Debug, Deserialize)]
pub(crate) struct HopCounts {
    pub(crate) endpoint_name: String,
    pub(crate) inside: EndCounts,
    pub(crate) outside: EndCounts,
}

/// One end: what entered the wire there.
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
            "--workloads",
            &format!("{folder}/workloads.yaml"),
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
            "tieline up --node demo --run-dir {folder}/run --state-dir … --bpffs {bpffs} --workloads …"
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
        self.apply(SERVICE_YAML, report)?;
        self.register(ENDPOINT, &self.stage.gateway, report)?;
        let begin = Instant::now();
        let wire = self.request("laptop", &self.stage.laptop, report)?;
        let took = begin.elapsed();
        let (near, far) = (shown_addresses(&wire.client), shown_addresses(&wire.endpoint));
        let detail = format!("{SERVICE} by {ENDPOINT}: {near} ↔ {far}");
        report.step("vWire", &detail, Some(took))?;
        Ok(wire)
    }

    /// Declares what a file of the examples says.
    pub(crate) fn apply(&self, (name, text): (&str, &str), report: &mut Report) -> Result<()> {
        let path = self.stage.folder().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let path = path.display().to_string();
        self.run(&["apply", "-f", &path], report)
    }

    /// Registers a workload as an endpoint.
    pub(crate) fn register(&self, name: &str, netns: &NetNs, report: &mut Report) -> Result<()> {
        let netns = netns.name();
        let arguments = ["register", "--service", SERVICE, "--name", name, "--netns", netns];
        self.run(&arguments, report)
    }

    /// A vWire for a workload, which answers.
    pub(crate) fn request(&self, id: &str, netns: &NetNs, report: &mut Report) -> Result<Wire> {
        let request = ["request", SERVICE, "--id", id, "--netns", netns.name()];
        let answer: Requested = self.ask(&request, report)?;
        let (client, endpoint) = (addresses(&answer.src_ip_addrs)?, addresses(&answer.dst_ip_addrs)?);
        ensure!(
            client.len() == 2 && endpoint.len() == 2,
            "an address of each family was expected: {answer:?}"
        );
        let first = PingPlan {
            count: 1,
            interval: Duration::ZERO,
            ..PingPlan::default()
        };
        for far in &endpoint {
            ping(netns, *far, first)?.assert_all_answered()?;
        }
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
        let output = self.output(&["get", "wires", id, "-o", "json"])?;
        let wires: Vec<WireCounts> = parse(&output)?;
        wires
            .into_iter()
            .next()
            .context("the node does not know the wire")
    }

    /// Closes the wire, and makes sure that both interfaces are gone.
    pub(crate) fn close(&self, wire: &Wire, report: &mut Report) -> Result<()> {
        let begin = Instant::now();
        self.run(&["close", &wire.id], report)?;
        let ends = [
            (&self.stage.laptop, &wire.client_interface),
            (&self.stage.gateway, &wire.endpoint_interface),
        ];
        for (netns, interface) in ends {
            eventually(GONE_LIMIT, &format!("{interface} to be gone"), || {
                is_gone(netns, interface)
            })?;
        }
        let left: Vec<serde_json::Value> = parse(&self.output(&["get", "connections", "-o", "json"])?)?;
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
    pub(crate) fn run(&self, arguments: &[&str], report: &mut Report) -> Result<()> {
        report.command(&shown(arguments))?;
        self.output(arguments).map(drop)
    }

    /// A command whose answer is.
    fn ask<T: DeserializeOwned>(&self, arguments: &[&str], report: &mut Report) -> Result<T> {
        report.command(&shown(arguments))?;
        parse(&self.output(&[arguments, &["-o", "json"]].concat())?)
    }

    fn output(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--run-dir")
            .arg(self.stage.folder().join("run"))
            .stdin(Stdio::null());
        let output = self.stage.node.run(move || Ok(command.output()?))?;
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

fn shown_addresses(addresses: &[IpAddr]) -> String {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    shown.join(" ")
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
