//! How long a workload waits: from its Request at the agent's socket to the first packet that came back.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tieline_lab::{PingPlan, ping};
use tieline_proto::{
    connection::{Connection, Mechanism},
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

use super::{Interrupted, node::SERVICE, stage::Stage};
use crate::client::{self, Address, Server};

/// How many wires are made, one after the other.
const ROUNDS: usize = 20;

/// Makes and closes wires beside the one that the demonstration is about; sorted times.
pub(crate) fn measure(stage: &Stage, interrupted: &Interrupted) -> Result<Vec<Duration>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let address = Address::unix(&stage.folder().join("run/agent.sock"))?;
    let mut client = NetworkServiceClient::new(runtime.block_on(client::connect(Server::Agent, &address))?);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        interrupted.check()?;
        times.push(round(stage, &runtime, &mut client)?);
    }
    times.sort();
    Ok(times)
}

fn round(stage: &Stage, runtime: &Runtime, client: &mut NetworkServiceClient<Channel>) -> Result<Duration> {
    let request = NetworkServiceRequest {
        connection: Some(Connection {
            id: uuid::Uuid::new_v4().to_string(),
            network_service: SERVICE.to_owned(),
            ..Connection::default()
        }),
        mechanism_preferences: vec![Mechanism {
            cls: "LOCAL".to_owned(),
            r#type: "KERNEL".to_owned(),
            parameters: HashMap::from([(
                "inodeURL".to_owned(),
                format!("file://{}", stage.laptop.path().display()),
            )]),
        }],
    };
    let begin = Instant::now();
    let connection = runtime.block_on(client.request(request))?.into_inner();
    let first = PingPlan {
        count: 1,
        interval: Duration::ZERO,
        ..PingPlan::default()
    };
    ping(&stage.laptop, endpoint_address(&connection)?, first)?.assert_all_answered()?;
    let took = begin.elapsed();
    runtime.block_on(client.close(connection))?;
    Ok(took)
}

fn endpoint_address(connection: &Connection) -> Result<IpAddr> {
    let context = connection
        .context
        .as_ref()
        .and_then(|context| context.ip_context.as_ref());
    let first = context
        .and_then(|ip| ip.dst_ip_addrs.first())
        .context("the endpoint has no address")?;
    Ok(first.parse::<ipnet::IpNet>()?.addr())
}
