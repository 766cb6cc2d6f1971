//! A node: control and agent as processes in a namespace of their own.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use dataplane_common::{ABI_VERSION, names};
use tempfile::TempDir;
use tieline_lab::{BpfFs, NetNs, PREFIX, Process, log_to, unique_name, within};

use crate::{Api, Kernel, binary};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(20);

/// Environment variable: the back end that every node attaches its programs with (`tcx`, `clsact`), to hold both
/// to the same tests on one kernel.
const ENV_ATTACH: &str = "TIELINE_TEST_ATTACH";

/// How a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One process: `tieline up`.
    Whole,
    /// Two processes: `tieline control` and `tieline agent`.
    Apart,
}

/// A node, started and ready; everything of it goes on drop. If the test fails, its logs are printed.
#[derive(Debug)]
pub struct Node {
    name: String,
    mode: Mode,
    arguments: Vec<String>,
    control_arguments: Vec<String>,
    // The order of fields is the order in which they go: processes, then what they stand on.
    agent: Option<Process>,
    control: Option<Process>,
    netns: Arc<NetNs>,
    bpffs: BpfFs,
    dir: TempDir,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub fn start(label: &str, mode: Mode) -> Result<Self> {
        Self::start_with(label, mode, &[])
    }

    /// The same with more arguments for the agent's half.
    pub fn start_with(label: &str, mode: Mode, arguments: &[&str]) -> Result<Self> {
        Self::start_in(Arc::new(NetNs::new(label)?), label, mode, arguments, &[])
    }

    /// Starts a node in two processes, with more arguments for control's half.
    pub fn start_apart(label: &str, control_arguments: &[&str]) -> Result<Self> {
        let netns = Arc::new(NetNs::new(label)?);
        Self::start_in(netns, label, Mode::Apart, &[], control_arguments)
    }

    /// Starts another node in the same namespace, with folders and a bpffs of its own.
    pub fn start_beside(&self, label: &str, mode: Mode) -> Result<Self> {
        Self::start_in(Arc::clone(&self.netns), label, mode, &[], &[])
    }

    fn start_in(
        netns: Arc<NetNs>,
        label: &str,
        mode: Mode,
        arguments: &[&str],
        control_arguments: &[&str],
    ) -> Result<Self> {
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        if let Ok(backend) = std::env::var(ENV_ATTACH) {
            arguments.extend(["--attach".to_owned(), backend]);
        }
        let mut node = Self {
            name: unique_name(label).to_lowercase(),
            mode,
            arguments,
            control_arguments: control_arguments.iter().map(ToString::to_string).collect(),
            agent: None,
            control: None,
            netns,
            bpffs: BpfFs::new()?,
            dir: tempfile::Builder::new()
                .prefix(&format!("{PREFIX}node-"))
                .tempdir()?,
        };
        if mode == Mode::Apart {
            node.start_control()?;
        }
        node.start_agent()?;
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace it runs in.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Its bpffs.
    #[must_use]
    pub fn bpffs(&self) -> &BpfFs {
        &self.bpffs
    }

    /// Its folder: logs, state and sockets.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of its pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpffs
            .path()
            .join(names::PIN_ROOT)
            .join(format!("v{ABI_VERSION}"))
    }

    /// Folder of the sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Calls through its sockets. It stays usable over restarts.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.run_dir())
    }

    /// What the kernel holds of its wires.
    pub fn kernel(&self) -> Result<Kernel> {
        Kernel::read(&self.netns, &self.pins())
    }

    /// A `tieline` command with this node's folders, to be started wherever the caller likes.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary::tieline()?);
        command.args(arguments).arg("--run-dir").arg(self.run_dir());
        Ok(command)
    }

    /// Runs a `tieline` command on this node with this standard input; its output, or what it said and how it ended.
    pub fn tieline(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(arguments)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let mut stdin = process.stdin.take().context("standard input is piped")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = process.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`tieline {}`: {}: {said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The ids of the processes that run.
    pub fn pids(&self) -> Vec<u32> {
        let processes = [&self.agent, &self.control].into_iter().flatten();
        processes.map(Process::pid).collect()
    }

    /// The program where every user may start it, with sockets that every user may reach.
    pub fn program_for_others(&self) -> Result<PathBuf> {
        let copy = self.dir.path().join("tieline");
        fs::copy(binary::tieline()?, &copy)?;
        for path in [self.dir.path(), &self.run_dir(), &copy] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(copy)
    }

    /// Starts control (which must not run) and waits until it answers.
    pub fn start_control(&mut self) -> Result<()> {
        let mut command = self.control_command()?;
        log_to(&mut command, &self.dir.path().join("control.log"))?;
        let mut process = self.netns.spawn(command)?;
        let api = self.api();
        within(START, "control to answer", || {
            if let Some(status) = process.try_wait()? {
                bail!("control ended at once: {status}\n{}", self.logs());
            }
            Ok(api.status().ok().map(drop))
        })
        .with_context(|| self.logs())?;
        self.control = Some(process);
        Ok(())
    }

    /// Starts the agent, or the whole node (which must not run), and waits until it is ready.
    pub fn start_agent(&mut self) -> Result<()> {
        self.launch_agent()?;
        self.wait_until_ready()
    }

    /// Starts the agent, or the whole node, and does not wait.
    pub fn launch_agent(&mut self) -> Result<()> {
        let mut command = self.agent_command()?;
        log_to(&mut command, &self.dir.path().join("agent.log"))?;
        self.agent = Some(self.netns.spawn(command)?);
        Ok(())
    }

    /// The command that starts the agent, or the whole node.
    pub fn agent_command(&self) -> Result<Command> {
        let role = match self.mode {
            Mode::Whole => "up",
            Mode::Apart => "agent",
        };
        let mut command = self.command(&[role, "--node", &self.name])?;
        if !self.arguments.iter().any(|argument| argument == "--http") {
            command.args(["--http", "off"]);
        }
        command.args(&self.arguments);
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        command.arg("--bpffs").arg(self.bpffs.path());
        Ok(command)
    }

    /// The command that starts control.
    pub fn control_command(&self) -> Result<Command> {
        let mut command = self.command(&["control", "--http", "off"])?;
        command.args(&self.control_arguments);
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        Ok(command)
    }

    /// Waits until the agent has a session with control and what control planned.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let api = self.api();
        let outcome = within(START, "the node to be ready", || {
            if let Some(process) = &mut self.agent
                && let Some(status) = process.try_wait()?
            {
                bail!("the agent ended: {status}");
            }
            let ready = |node: &tieline_proto::tieline::admin::v1::GetNodeResponse| {
                node.control_connected && node.planned_generation == node.applied_generation
            };
            Ok(api.node().ok().filter(ready).map(drop))
        });
        outcome.with_context(|| self.logs())
    }

    /// Ends the agent's process, or the whole node's, as a crash would.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.kill()?;
        Ok(())
    }

    /// Ends control's process as a crash would. With [`Mode::Whole`] it is the agent's.
    pub fn kill_control(&mut self) -> Result<()> {
        self.control.take().context("control does not run")?.kill()?;
        Ok(())
    }

    /// Ends all processes in order and fails unless they end well.
    pub fn stop(&mut self) -> Result<()> {
        for process in [self.agent.take(), self.control.take()] {
            let Some(mut process) = process else { continue };
            let status = process.stop(STOP)?;
            if !status.success() {
                bail!("a process of the node ended with {status}\n{}", self.logs());
            }
        }
        Ok(())
    }

    /// The end of its logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["control.log", "agent.log"] {
            let Ok(log) = fs::read_to_string(self.dir.path().join(name)) else {
                continue;
            };
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!("--- {name} of {}\n", self.name));
            for line in lines.iter().skip(lines.len().saturating_sub(60)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}
