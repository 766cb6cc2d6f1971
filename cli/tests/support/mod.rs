//! Runs the `tieline` binary as a user does, in folders of its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; each test file uses its part"
)]

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tieline_lab::{Process, eventually, log_to};

/// Longest wait for a daemon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Folders for one node.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("tl-cli-").tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The program with this home's folders, and no settings of whoever runs the tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIELINE_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("TIELINE_RUN_DIR", self.path().join("run"));
        command
    }

    /// The same for a daemon, which also has a state folder and no HTTP unless it says so.
    pub(crate) fn daemon(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command
            .env("TIELINE_STATE_DIR", self.path().join("state"))
            .env("TIELINE_HTTP", "off");
        command
    }

    /// Starts a daemon and waits until it says that it is ready.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        let notify = self.path().join("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut command = self.daemon(arguments);
        command.env("NOTIFY_SOCKET", &notify);
        log_to(&mut command, &self.path().join("log")).unwrap();
        let process = Process::spawn(&mut command).unwrap();
        let mut buffer = [0; 1024];
        let ready = eventually(PATIENCE, "READY=1", || {
            let said = socket
                .recv(&mut buffer)
                .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
            Ok(said.is_ok_and(|text| text.lines().any(|line| line == "READY=1")))
        });
        if let Err(error) = ready {
            panic!(
                "{error}: {}",
                fs::read_to_string(self.path().join("log")).unwrap_or_default()
            );
        }
        process
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    /// Runs a command to its end with this standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Said {
        Said::of(self.command(arguments), stdin)
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(mut command: Command, stdin: &str) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that refuses its flags does not read.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        Self {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Fails unless it ended with this code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the error says all of this.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:?}");
        }
    }
}
