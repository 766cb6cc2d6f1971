//! One module per command. A command reads its flags, makes its calls, prints; no state, no policy.

pub(crate) mod apply;
pub(crate) mod close;
pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod drain;
pub(crate) mod explain;
pub(crate) mod get;
mod kind;
mod lease;
pub(crate) mod monitor;
pub(crate) mod plan;
pub(crate) mod register;
pub(crate) mod request;
pub(crate) mod status;

use tieline_proto::{
    connection::monitor_connection_client::MonitorConnectionClient,
    networkservice::network_service_client::NetworkServiceClient,
    registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
    tieline::admin::v1::{admin_service_client::AdminServiceClient, node_service_client::NodeServiceClient},
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

use crate::{
    args::{Cli, Command, Global},
    check,
    client::{self, Server},
    daemon, demo,
    error::Failure,
    exit::Exit,
};

/// The largest answer that is read: a list of 100,000 connections fits.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Carries out the command.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Up(args) => daemon::up(&global, args),
        Command::Agent(args) => daemon::agent(&global, args),
        Command::Control(args) => daemon::control(&global, args),
        Command::Check(args) => check::run(&global, &args),
        Command::Demo(args) => demo::run(&global, &args),
        Command::Completion(args) => completion::run(&args),
        command => runtime()?.block_on(call(&global, command)),
    }
}

async fn call(global: &Global, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Apply(args) => apply::run(global, &args).await,
        Command::Plan(args) => plan::run(global, &args).await,
        Command::Explain(args) => explain::run(global, args).await,
        Command::Drain(args) => drain::run(global, args).await,
        Command::Get(args) => get::run(global, &args).await,
        Command::Describe(args) => describe::run(global, &args).await,
        Command::Delete(args) => delete::run(global, &args).await,
        Command::Register(args) => register::run(global, args).await,
        Command::Request(args) => request::run(global, args).await,
        Command::Close(args) => close::run(global, &args).await,
        Command::Monitor(args) => monitor::run(global, &args).await,
        Command::Status(_) => status::run(global).await,
        Command::Up(_)
        | Command::Agent(_)
        | Command::Control(_)
        | Command::Check(_)
        | Command::Demo(_)
        | Command::Completion(_) => Ok(Exit::Usage),
    }
}

/// Clients wait on one socket: one thread is enough.
fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
}

async fn admin(global: &Global) -> Result<AdminServiceClient<Channel>, Failure> {
    let channel = client::connect(Server::Control, &global.control_address()?).await?;
    Ok(AdminServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

async fn agent_channel(global: &Global) -> Result<Channel, Failure> {
    client::connect(Server::Agent, &global.agent_address()?).await
}

async fn node(global: &Global) -> Result<NodeServiceClient<Channel>, Failure> {
    Ok(NodeServiceClient::new(agent_channel(global).await?).max_decoding_message_size(MAX_ANSWER_BYTES))
}

async fn network_service(global: &Global) -> Result<NetworkServiceClient<Channel>, Failure> {
    Ok(NetworkServiceClient::new(agent_channel(global).await?))
}

async fn endpoint_registry(
    global: &Global,
) -> Result<NetworkServiceEndpointRegistryClient<Channel>, Failure> {
    Ok(NetworkServiceEndpointRegistryClient::new(
        agent_channel(global).await?,
    ))
}

async fn monitor_connection(global: &Global) -> Result<MonitorConnectionClient<Channel>, Failure> {
    Ok(
        MonitorConnectionClient::new(agent_channel(global).await?)
            .max_decoding_message_size(MAX_ANSWER_BYTES),
    )
}
