//! Other processes that call: in a network namespace of their own, as another user, or both.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tieline_lab::{NetNs, Process};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

use super::peer::Peer;
use crate::agent::{error::CallError, testing::soon};

/// Connects to the socket in its first argument, as the user in its second, and passes on what comes from either
/// side. So the kernel sees that process as the caller, and the test speaks through it.
const RELAY: &str = r#"
use strict; use Socket;
my ($path, $uid) = @ARGV;
if ($uid) { $( = $uid; $) = "$uid $uid"; $< = $uid; $> = $uid; }
open(my $in, "+<&=", 0) or die "stdin: $!";
socket(my $out, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
connect($out, sockaddr_un($path)) or die "connect: $!";
sub pass { my ($from, $to) = @_; my $n = sysread($from, my $b, 65536) or exit; for (my $o = 0; $o < $n; ) { $o += syswrite($to, $b, $n - $o, $o) // exit; } }
while (1) {
    my $r = ""; vec($r, fileno($in), 1) = 1; vec($r, fileno($out), 1) = 1;
    select($r, undef, undef, undef);
    pass($in, $out) if vec($r, fileno($in), 1);
    pass($out, $in) if vec($r, fileno($out), 1);
}
"#;

/// Another process with a connection to a socket.
pub(crate) struct Relay {
    pub(crate) process: Process,
    stream: Option<StdStream>,
    /// The process ends when its connection does.
    accepted: Option<UnixStream>,
}

impl Relay {
    /// A process in `netns` (or the test's own) as user `uid`.
    pub(crate) fn start(netns: Option<&NetNs>, uid: u32, socket: &Path) -> Self {
        let (ours, theirs) = StdStream::pair().unwrap();
        let mut command = Command::new("perl");
        command
            .args(["-e", RELAY])
            .arg(socket)
            .arg(uid.to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let process = match netns {
            Some(netns) => netns.spawn(command).unwrap(),
            None => Process::spawn(&mut command).unwrap(),
        };
        Self {
            process,
            stream: Some(ours),
            accepted: None,
        }
    }

    /// gRPC through that process.
    pub(crate) async fn channel(&mut self) -> Channel {
        let stream = self.stream.take().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = Some(UnixStream::from_std(stream).unwrap());
        let connector = tower::service_fn(move |_| {
            let stream = stream
                .take()
                .ok_or_else(|| io::Error::other("the relay has one connection"));
            async { stream.map(hyper_util::rt::TokioIo::new) }
        });
        soon(Endpoint::from_static("http://relay").connect_with_connector(connector))
            .await
            .unwrap()
    }
}

/// A socket that only accepts.
pub(crate) struct Door {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

impl Door {
    pub(crate) fn new() -> Self {
        let folder = open_folder();
        let path = folder.path().join("door.sock");
        let listener = UnixListener::bind(&path).unwrap();
        open_to_all(&path);
        Self { folder, listener }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("door.sock")
    }

    pub(crate) async fn accept(&self) -> UnixStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// A process that stays connected, and what the kernel says about it.
    pub(crate) async fn caller(&self, netns: Option<&NetNs>, uid: u32) -> (Relay, Result<Peer, CallError>) {
        let mut relay = Relay::start(netns, uid, &self.path());
        let stream = self.accept().await;
        let peer = Peer::of(&stream);
        relay.accepted = Some(stream);
        (relay, peer)
    }
}

/// A temporary folder that every user may look into.
pub(crate) fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    folder
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
}
