//! `tieline request`: asks for a vWire.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use ipnet::IpNet;
use tieline_model::{DNS_KEY, DNS_VALUE};
use tieline_proto::{
    connection::{Connection, Mechanism, Path, PathSegment},
    connectioncontext::{ConnectionContext, IpContext, Route},
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
};
use tonic::transport::Channel;

use super::lease::{Keeper, Lease, refresh_after};
use crate::{
    args::Global,
    error::Failure,
    exit::Exit,
    input::{self, Label, Place},
    output,
    view::{ConnectionView, lease_end},
};

/// How long a kept wire lives without a refresh if nothing else is said.
const KEPT_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Flags of `request`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline request gold-network                              for this process's own network namespace
  tieline request gold-network --netns laptop --interface nsm-1 --label app=web
  tieline request gold-network --pid 4711 --keep            until Ctrl-C
  tieline request gold-network --id my-wire --lifetime 1h   again with the same id: refreshes it

Without --lifetime and --keep the node's agent keeps the wire for as long as the namespace is there.")]
pub(crate) struct RequestArgs {
    /// The NetworkService
    #[arg(value_name = "NETWORKSERVICE")]
    service: String,
    #[command(flatten)]
    place: Place,
    /// Name of the interface in the client's namespace [default: the agent's choice]
    #[arg(long, value_name = "NAME", value_parser = input::parse_interface)]
    interface: Option<String>,
    /// A label of the client, for selecting the endpoint; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// Id of the connection; a known id refreshes that connection [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// MTU of the wire in octets [default: the service's]
    #[arg(long, value_name = "OCTETS", value_parser = input::parse_mtu)]
    mtu: Option<u32>,
    /// IP or ETHERNET; must be the service's [default: the service's]
    #[arg(long, value_parser = ["IP", "ETHERNET"], ignore_case = true)]
    payload: Option<String>,
    /// A prefix that the wire's addresses must not lie in; may be repeated
    #[arg(long = "exclude", value_name = "PREFIX", value_parser = input::parse_prefix)]
    exclude: Vec<IpNet>,
    /// A prefix to reach through the wire, beside what the service leads to; may be repeated
    #[arg(long = "route", value_name = "PREFIX", value_parser = input::parse_prefix)]
    routes: Vec<IpNet>,
    /// An address to have, such as the one of a wire before; one of each family
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// Let the namespace use the service's name servers, by /etc/netns/NAME/resolv.conf
    #[arg(long)]
    dns: bool,
    /// How long the wire lives without a refresh [default: as long as the namespace is there; with --keep: 10m]
    #[arg(long, value_name = "TIME", value_parser = input::parse_lifetime)]
    lifetime: Option<Duration>,
    /// Stay, refresh it, and close it at Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Requests it, and keeps it if told to.
pub(crate) async fn run(global: &Global, args: RequestArgs) -> Result<Exit, Failure> {
    let keep = args.keep;
    let lease = Lease::new(args.lifetime, keep.then_some(KEPT_LIFETIME));
    let mut client = super::network_service(global).await?;
    let id = args
        .id
        .clone()
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let request = build(args, id);
    let started = Instant::now();
    let connection = send(&mut client, &request, lease).await?;
    tracing::info!(elapsed = ?started.elapsed(), "request answered");
    let view = ConnectionView::of_client(connection.clone(), SystemTime::now());
    output::object(global.output, &view, || view.describe())?;
    if let (true, Lease::Client(lifetime)) = (keep, lease) {
        let mut keeper = Keeper::new()?;
        output::note("kept until Ctrl-C")?;
        keep_alive(&mut client, &request, connection.clone(), lifetime, &mut keeper).await;
        client.close(connection).await?;
        output::note(&format!("connection {} is closed", view.id))?;
    }
    Ok(Exit::Ok)
}

/// Refreshes until the user ends it. A failed refresh is retried: the wire goes on forwarding until its lease ends.
async fn keep_alive(
    client: &mut NetworkServiceClient<Channel>,
    request: &NetworkServiceRequest,
    mut connection: Connection,
    lifetime: Duration,
    keeper: &mut Keeper,
) {
    while keeper
        .wait(refresh_after(SystemTime::now(), lease_end(&connection), lifetime))
        .await
    {
        match send(client, request, Lease::Client(lifetime)).await {
            Ok(refreshed) => connection = refreshed,
            Err(failure) => tracing::warn!("refresh failed, trying again: {failure}"),
        }
    }
}

async fn send(
    client: &mut NetworkServiceClient<Channel>,
    request: &NetworkServiceRequest,
    lease: Lease,
) -> Result<Connection, Failure> {
    let mut request = request.clone();
    let end = lease.end_after(SystemTime::now());
    let segments = request
        .connection
        .iter_mut()
        .flat_map(|connection| &mut connection.path);
    for segment in segments.flat_map(|path| &mut path.path_segments) {
        segment.expires = end;
    }
    Ok(client.request(lease.call(request)).await?.into_inner())
}

/// The request without its end: that is set when it is sent.
fn build(args: RequestArgs, id: String) -> NetworkServiceRequest {
    let RequestArgs {
        service,
        place,
        interface,
        labels,
        mtu,
        payload,
        exclude,
        routes,
        addresses,
        dns,
        ..
    } = args;
    let mut parameters = HashMap::new();
    parameters.extend(interface.map(|name| ("name".to_owned(), name)));
    parameters.extend(
        Some(place.url())
            .filter(|url| !url.is_empty())
            .map(|url| ("inodeURL".to_owned(), url)),
    );
    let route = |prefix: &IpNet| Route {
        prefix: prefix.to_string(),
        next_hop: String::new(),
    };
    let ip_context = IpContext {
        excluded_prefixes: exclude.iter().map(ToString::to_string).collect(),
        src_ip_addrs: addresses.iter().map(ToString::to_string).collect(),
        src_routes: routes.iter().map(route).collect(),
        ..IpContext::default()
    };
    let resolver = dns.then(|| (DNS_KEY.to_owned(), DNS_VALUE.to_owned()));
    let segment = PathSegment {
        name: "tieline-cli".to_owned(),
        id: id.clone(),
        ..PathSegment::default()
    };
    let connection = Connection {
        id,
        network_service: service,
        context: Some(ConnectionContext {
            ip_context: Some(ip_context),
            mtu: mtu.unwrap_or_default(),
            extra_context: resolver.into_iter().collect(),
            ..ConnectionContext::default()
        }),
        labels: input::label_map(&labels),
        path: Some(Path {
            index: 0,
            path_segments: vec![segment],
        }),
        payload: payload.unwrap_or_default().to_uppercase(),
        ..Connection::default()
    };
    let mechanism = Mechanism {
        cls: "LOCAL".to_owned(),
        r#type: "KERNEL".to_owned(),
        parameters,
    };
    NetworkServiceRequest {
        connection: Some(connection),
        mechanism_preferences: vec![mechanism],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse_from};

    fn request(line: &str) -> NetworkServiceRequest {
        match parse_from(line.split_whitespace()).unwrap().command {
            Command::Request(args) => build(args, "id-1".to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_nsm_s_fields() {
        let request = request(
            "tieline request gold --netns laptop --interface nsm-1 --label app=web --mtu 1400 --payload ip \
             --exclude 10.0.0.0/8 --route 192.0.2.0/24 --address 10.1.0.5 --address fd00::5 --dns",
        );
        let mechanism = &request.mechanism_preferences[0];
        assert_eq!(
            (mechanism.cls.as_str(), mechanism.r#type.as_str()),
            ("LOCAL", "KERNEL")
        );
        assert_eq!(mechanism.parameters["inodeURL"], "file:///run/netns/laptop");
        assert_eq!(mechanism.parameters["name"], "nsm-1");
        let connection = request.connection.unwrap();
        assert_eq!(
            (connection.id.as_str(), connection.network_service.as_str()),
            ("id-1", "gold")
        );
        assert_eq!(connection.labels["app"], "web");
        assert_eq!(connection.payload, "IP");
        let context = connection.context.unwrap();
        assert_eq!(context.mtu, 1400);
        assert_eq!(context.extra_context["tieline.io/dns"], "resolv.conf");
        let ip = context.ip_context.unwrap();
        assert_eq!(ip.excluded_prefixes, ["10.0.0.0/8"]);
        assert_eq!(ip.src_ip_addrs, ["10.1.0.5", "fd00::5"]);
        assert_eq!(ip.src_routes[0].prefix, "192.0.2.0/24");
    }

    #[test]
    fn without_flags_nothing_is_claimed_about_the_caller() {
        let request = request("tieline request gold");
        assert!(request.mechanism_preferences[0].parameters.is_empty());
        assert_eq!(request.connection.unwrap().context.unwrap().mtu, 0);
    }
}
