//! The process: `tieline up` in a namespace of its own, with folders and a bpffs of its own.

use std::{
    env, fs,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{net::UnixDatagram, process::CommandExt as _},
    },
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use dataplane_common::{ABI_VERSION, names};
use tempfile::TempDir;
use tieline_lab::{BpfFs, NetNs, Process, log_to, slow, within};

use super::{Api, Control, memory};

/// Environment variable: the `tieline` to measure, instead of the one that was built with this program.
const ENV_PROGRAM: &str = "TIELINE_BENCH_PROGRAM";
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A running node. Everything it made goes with the guard: its interfaces with the namespace, its pins with the
/// bpffs, its files with the folder.
pub(crate) struct Node {
    process: Process,
    api: Api,
    control: Control,
    netns: Arc<NetNs>,
    bpffs: BpfFs,
    folder: TempDir,
}

impl Node {
    /// Starts one and waits for its word that it is ready. `attach` is how it attaches its programs: `tieline up`'s
    /// flag of that name.
    pub(crate) fn start(attach: &str) -> Result<Self> {
        let program = program()?;
        let netns = Arc::new(NetNs::new("bench-n")?);
        let bpffs = BpfFs::new()?;
        let folder = tempfile::Builder::new().prefix("tl-bench-").tempdir()?;
        let notify = folder.path().join("notify");
        let ready = UnixDatagram::bind(&notify).with_context(|| format!("listen at {}", notify.display()))?;
        ready.set_nonblocking(true)?;

        let (run, log) = (folder.path().join("run"), folder.path().join("node.log"));
        let mut command = Command::new(&program);
        command.args([
            "up",
            "--node",
            "bench",
            "--http",
            "off",
            "--log-level",
            "warn",
            "--attach",
            attach,
        ]);
        command
            .arg("--run-dir")
            .arg(&run)
            .arg("--bpffs")
            .arg(bpffs.path());
        command.arg("--state-dir").arg(folder.path().join("state"));
        // Ctrl-C at the terminal is for the benchmark, which then ends the node itself.
        command.env("NOTIFY_SOCKET", &notify).process_group(0);
        log_to(&mut command, &log)?;
        let mut process = netns.spawn(command)?;
        let started = within(START_LIMIT, "the node to be ready", || {
            match process.try_wait()? {
                Some(status) => bail!("the node ended with {status}"),
                None => Ok(is_ready(&ready).then_some(())),
            }
        });
        started.with_context(|| {
            format!(
                "{}: {}",
                program.display(),
                fs::read_to_string(&log).unwrap_or_default()
            )
        })?;
        Ok(Self {
            process,
            api: Api::connect(&run.join("agent.sock"))?,
            control: Control::connect(&run.join("control.sock"))?,
            netns,
            bpffs,
            folder,
        })
    }

    /// What its agent answers.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Where its agent answers.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.folder.path().join("run").join("agent.sock")
    }

    /// What its control answers.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Where it runs.
    pub(crate) fn netns(&self) -> &Arc<NetNs> {
        &self.netns
    }

    /// The node's complaints so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.log")).unwrap_or_default()
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        let status = self.process.stop(slow(STOP_LIMIT))?;
        if !status.success() {
            bail!("the node ended with {status}: {}", self.log());
        }
        Ok(())
    }

    /// Octets of the process that are in memory at this moment.
    pub(crate) fn memory(&self) -> Result<f64> {
        memory::of_process(self.process.pid())
    }

    /// Octets of kernel memory of all pinned maps at this moment, by the kernel's own account.
    pub(crate) fn map_bytes(&self) -> Result<f64> {
        let folder = self
            .bpffs
            .path()
            .join(names::PIN_ROOT)
            .join(format!("v{ABI_VERSION}"))
            .join(names::PIN_MAPS);
        let mut octets = 0.0;
        for name in names::PINNED_MAPS {
            let pin = folder.join(name);
            let map = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
            let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
            let line = about
                .lines()
                .find_map(|line| line.strip_prefix("memlock:"))
                .context("no memlock")?;
            octets += line.trim().parse::<f64>().context("memlock")?;
        }
        Ok(octets)
    }
}

/// The program beside this one, which one build made.
pub(super) fn program() -> Result<PathBuf> {
    if let Some(given) = env::var_os(ENV_PROGRAM) {
        return Ok(given.into());
    }
    let beside = env::current_exe()?.with_file_name("tieline");
    if !beside.is_file() {
        bail!(
            "{} is not there: run `cargo build --release --package tieline`",
            beside.display()
        );
    }
    Ok(beside)
}

/// Whether the service manager's socket has received `READY=1`.
fn is_ready(socket: &UnixDatagram) -> bool {
    let mut datagram = [0; 4096];
    while let Ok(len) = socket.recv(&mut datagram) {
        if String::from_utf8_lossy(&datagram[..len])
            .lines()
            .any(|line| line == "READY=1")
        {
            return true;
        }
    }
    false
}
