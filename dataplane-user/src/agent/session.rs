//! The session with control: dialled by the agent, opened anew whenever it ends.
//!
//! Each session begins with a Hello and gets a Snapshot, so that neither side has to remember what the other one
//! knew. What control sends goes to the worker as it comes; what the worker answers goes up as it comes. While
//! there is no session, the kernel keeps forwarding what it forwards.

use std::{sync::Arc, time::Duration};

use dataplane_common::ABI_VERSION;
use tieline_proto::tieline::agent::v1::{
    self as proto, agent_service_client::AgentServiceClient, session_down, session_up,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status as RpcStatus, Streaming, transport::Channel};
use tracing::{info, warn};

use super::{
    convert, dial,
    reports::{self, Report, Reports},
    status::{SessionState, Status},
    worker::{Fault, Job},
};
use crate::datapath::Description;

/// The longest message from control: the snapshot of a node with the largest tables.
const MAX_SNAPSHOT_BYTES: usize = 256 * 1024 * 1024;
/// Messages to control that may wait for the network.
const MAX_UP: usize = 256;
/// How long control may take for its first answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What every session of an agent needs.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) channel: Channel,
    pub(crate) datapath: Description,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) status: Arc<Status>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("control cannot be reached: {0}")]
    Unreachable(String),
    #[error("control did not answer within {OPEN_TIMEOUT:?}")]
    Silent,
    #[error("control closed the session")]
    Closed,
    #[error("control takes too little: {} reports wait for it", reports::MOST)]
    Overrun,
    #[error("the session broke: {0}")]
    Broken(String),
    #[error("control sent {what} where {expected} was expected; upgrade the older of the two")]
    Protocol {
        what: &'static str,
        expected: &'static str,
    },
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("the worker has ended")]
    NoWorker,
}

impl Session {
    /// Keeps a session open until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut attempt = 0;
        while !shutdown.is_cancelled() {
            let mut acknowledged = false;
            let end = tokio::select! {
                () = shutdown.cancelled() => break,
                end = self.once(&mut acknowledged) => end,
            };
            // Only a plan that could be applied counts as success; another one is not asked for without pause.
            if acknowledged {
                attempt = 0;
            }
            warn!(reason = %end, "no session with control; wires keep forwarding");
            self.status.set_session(SessionState::Away {
                reason: end.to_string(),
            });
            let pause = dial::back_off(attempt, fastrand::f64());
            attempt = attempt.saturating_add(1);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.status.set_session(SessionState::Away {
            reason: "the agent is shutting down".to_owned(),
        });
    }

    /// One session, from Hello to its end.
    async fn once(&self, acknowledged: &mut bool) -> End {
        let (up, receiver) = mpsc::channel(MAX_UP);
        let mut down = match self.open(&up, receiver).await {
            Ok(down) => down,
            Err(end) => return end,
        };
        let (reports, answers, overrun) = Reports::new(reports::MOST);
        let (begin, begun) = oneshot::channel();
        tokio::select! {
            end = self.pump_down(&mut down, reports, begin) => end,
            end = pump_up(answers, up.clone(), acknowledged) => end,
            end = self.keep_alive(begun, up) => end,
            () = overrun.cancelled() => End::Overrun,
        }
    }

    async fn open(
        &self,
        up: &mpsc::Sender<proto::SessionUp>,
        receiver: mpsc::Receiver<proto::SessionUp>,
    ) -> Result<Streaming<proto::SessionDown>, End> {
        let hello = proto::Hello {
            node: self.status.node.clone(),
            abi_version: ABI_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.status.applied(),
            attach_backend: self.datapath.attach_backend.to_owned(),
            max_wires: self.datapath.max_wires,
            machine: machine(),
        };
        // The channel is new and holds more than one message.
        let _ = up.send(up_message(session_up::Message::Hello(hello))).await;
        let mut client =
            AgentServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_SNAPSHOT_BYTES);
        let call = client.session(ReceiverStream::new(receiver));
        match tokio::time::timeout(OPEN_TIMEOUT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(End::Unreachable(dial::describe(&status))),
            Err(_) => Err(End::Silent),
        }
    }

    /// Tells control that the node is there, and who on it is not any more, as often as the plan asks for it.
    async fn keep_alive(
        &self,
        begun: oneshot::Receiver<Duration>,
        up: mpsc::Sender<proto::SessionUp>,
    ) -> End {
        let interval = begun.await.unwrap_or_default();
        if interval.is_zero() {
            // Control wants none, or the downward half has ended and says why itself.
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.status.tenants.suspected() => {}
            }
            let status = Arc::clone(&self.status);
            let look = tokio::task::spawn_blocking(move || status.tenants.take_vanished());
            let Ok(told) = look.await else {
                return End::Broken("the look at workloads' namespaces did not end".to_owned());
            };
            for id in &told.connections_gone {
                info!(connection = id, "the client's namespace is gone");
            }
            for name in &told.endpoints_gone {
                info!(endpoint = name, "the endpoint's namespace or interface is gone");
            }
            if up
                .send(up_message(session_up::Message::KeepAlive(told)))
                .await
                .is_err()
            {
                return End::Closed;
            }
        }
    }

    /// Hands control's messages to the worker until the stream ends. `begin` is told how often to say that the node is
    /// there.
    async fn pump_down(
        &self,
        down: &mut Streaming<proto::SessionDown>,
        reports: Reports,
        begin: oneshot::Sender<Duration>,
    ) -> End {
        let first = match tokio::time::timeout(OPEN_TIMEOUT, next(down)).await {
            Ok(Ok(first)) => first,
            Ok(Err(end)) => return end,
            Err(_) => return End::Silent,
        };
        let session_down::Message::Snapshot(snapshot) = first else {
            return End::Protocol {
                what: "a change",
                expected: "the whole plan",
            };
        };
        info!(
            generation = snapshot.generation,
            wires = snapshot.wires.len(),
            "session with control is up"
        );
        self.status.metrics.sessions.inc();
        self.status.set_session(SessionState::Up);
        self.status.tenants.begin(&snapshot);
        // The other half goes with this one.
        let _ = begin.send(Duration::from_millis(snapshot.keep_alive_interval.into()));
        let plan = convert::snapshot(snapshot);
        if self
            .jobs
            .send(Job::Snapshot {
                plan,
                reports: reports.clone(),
            })
            .await
            .is_err()
        {
            return End::NoWorker;
        }
        loop {
            let delta = match next(down).await {
                Ok(session_down::Message::Delta(delta)) => {
                    self.status.tenants.change(&delta);
                    convert::delta(delta)
                }
                Ok(session_down::Message::Snapshot(_)) => {
                    return End::Protocol {
                        what: "a second snapshot",
                        expected: "a change",
                    };
                }
                Err(end) => return end,
            };
            if self
                .jobs
                .send(Job::Delta {
                    delta,
                    reports: reports.clone(),
                })
                .await
                .is_err()
            {
                return End::NoWorker;
            }
        }
    }
}

/// The next message that holds something.
async fn next(down: &mut Streaming<proto::SessionDown>) -> Result<session_down::Message, End> {
    match down.message().await {
        Ok(Some(proto::SessionDown {
            message: Some(message),
        })) => Ok(message),
        Ok(Some(proto::SessionDown { message: None })) => Err(End::Protocol {
            what: "a message of an unknown kind",
            expected: "a snapshot or a change",
        }),
        Ok(None) => Err(End::Closed),
        Err(status) => Err(broken(&status)),
    }
}

fn broken(status: &RpcStatus) -> End {
    End::Broken(dial::describe(status))
}

/// Hands the worker's answers to control until one of them ends the session.
async fn pump_up(
    mut answers: mpsc::Receiver<Report>,
    up: mpsc::Sender<proto::SessionUp>,
    acknowledged: &mut bool,
) -> End {
    while let Some(report) = answers.recv().await {
        let message = match report {
            Report::Ack(ack) => session_up::Message::Ack(ack),
            Report::Observation(observation) => session_up::Message::Observation(observation),
            Report::Fault(fault) => return fault.into(),
        };
        if up.send(up_message(message)).await.is_err() {
            return End::Closed;
        }
        *acknowledged = true;
    }
    // Every sender is gone: the downward half has ended, and says why itself.
    std::future::pending().await
}

fn up_message(message: session_up::Message) -> proto::SessionUp {
    proto::SessionUp {
        message: Some(message),
    }
}

/// Id of the running kernel; empty if it cannot be read.
fn machine() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
