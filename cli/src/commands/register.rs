//! `tieline register`: makes a workload or an interface an endpoint of a NetworkService.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use clap::Args;
use tieline_model::{PLUMBING_LABEL, Plumbing};
use tieline_proto::registry::{
    NetworkServiceEndpoint, NetworkServiceLabels,
    network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
};
use tonic::transport::Channel;

use super::lease::{Keeper, Lease, refresh_after};
use crate::{
    args::Global,
    error::Failure,
    exit::Exit,
    input::{self, Label, Place},
    output,
    view::RegistrationView,
};

/// How long a kept registration lives without a refresh if nothing else is said.
const KEPT_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Flags of `register`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline register --service gold-network --name vpngateway                     this process's own namespace
  tieline register --service gold-network --name firewall-1 --netns fw1 --label app=firewall --keep
  tieline register --service gold-network --name firewall-2 --netns fw2 --plumbing gateway
  tieline register --service gold-network --name vm-7 --interface tap7          a VM's tap, left as it is")]
pub(crate) struct RegisterArgs {
    /// The NetworkService that it offers; may be repeated
    #[arg(long = "service", value_name = "NAME", required = true)]
    services: Vec<String>,
    /// Name of the endpoint; again with the same name: refreshes it
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: Place,
    /// An interface of the node (tap, veth, NIC) instead of a namespace
    #[arg(long, value_name = "NAME", conflicts_with_all = ["netns", "pid"], value_parser = input::parse_interface)]
    interface: Option<String>,
    /// A label of the endpoint, for selectors; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// How it stands in a path: endpoint, gateway (it routes) or transparent (a bump in the wire) [default: as the
    /// rules that lead to it ask for]
    #[arg(long, value_name = "KIND", value_parser = str::parse::<Plumbing>)]
    plumbing: Option<Plumbing>,
    /// How long the registration lives without a refresh [default: as long as the namespace or interface is there; with
    /// --keep: 1h]
    #[arg(long, value_name = "TIME", value_parser = input::parse_lifetime)]
    lifetime: Option<Duration>,
    /// Stay, refresh it, and unregister at Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Registers it, and keeps it if told to.
pub(crate) async fn run(global: &Global, args: RegisterArgs) -> Result<Exit, Failure> {
    let keep = args.keep;
    let lease = Lease::new(args.lifetime, keep.then_some(KEPT_LIFETIME));
    let mut client = super::endpoint_registry(global).await?;
    let endpoint = build(args);
    let registered = send(&mut client, &endpoint, lease).await?;
    let view = RegistrationView::new(registered.clone(), SystemTime::now());
    output::object(global.output, &view, || view.describe())?;
    if let (true, Lease::Client(lifetime)) = (keep, lease) {
        let mut keeper = Keeper::new()?;
        output::note("kept until Ctrl-C")?;
        keep_alive(&mut client, &endpoint, registered.clone(), lifetime, &mut keeper).await;
        client.unregister(registered).await?;
        output::note(&format!("endpoint {} is unregistered", view.name))?;
    }
    Ok(Exit::Ok)
}

/// Refreshes until the user ends it. A failed refresh is retried: the endpoint stays until its lease ends.
async fn keep_alive(
    client: &mut NetworkServiceEndpointRegistryClient<Channel>,
    endpoint: &NetworkServiceEndpoint,
    mut registered: NetworkServiceEndpoint,
    lifetime: Duration,
    keeper: &mut Keeper,
) {
    while keeper
        .wait(refresh_after(
            SystemTime::now(),
            registered.expiration_time,
            lifetime,
        ))
        .await
    {
        match send(client, endpoint, Lease::Client(lifetime)).await {
            Ok(refreshed) => registered = refreshed,
            Err(failure) => tracing::warn!("refresh failed, trying again: {failure}"),
        }
    }
}

async fn send(
    client: &mut NetworkServiceEndpointRegistryClient<Channel>,
    endpoint: &NetworkServiceEndpoint,
    lease: Lease,
) -> Result<NetworkServiceEndpoint, Failure> {
    let endpoint = NetworkServiceEndpoint {
        expiration_time: lease.end_after(SystemTime::now()),
        ..endpoint.clone()
    };
    Ok(client.register(lease.call(endpoint)).await?.into_inner())
}

/// The endpoint without its end: that is set when it is sent.
fn build(args: RegisterArgs) -> NetworkServiceEndpoint {
    let RegisterArgs {
        services,
        name,
        place,
        interface,
        labels,
        plumbing,
        ..
    } = args;
    let mut labels = input::label_map(&labels);
    labels.extend(plumbing.map(|one| (PLUMBING_LABEL.to_owned(), one.to_string())));
    let network_service_labels = if labels.is_empty() {
        HashMap::new()
    } else {
        services
            .iter()
            .map(|service| {
                (
                    service.clone(),
                    NetworkServiceLabels {
                        labels: labels.clone(),
                    },
                )
            })
            .collect()
    };
    NetworkServiceEndpoint {
        name,
        network_service_names: services,
        network_service_labels,
        url: interface.map_or_else(|| place.url(), |interface| format!("interface:///{interface}")),
        ..NetworkServiceEndpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse_from};

    fn endpoint(line: &str) -> NetworkServiceEndpoint {
        match parse_from(line.split_whitespace()).unwrap().command {
            Command::Register(args) => build(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn labels_are_given_for_each_service() {
        let endpoint =
            endpoint("tieline register --service a --service b --name n --label app=fw --netns /run/netns/x");
        assert_eq!(endpoint.network_service_names, ["a", "b"]);
        assert_eq!(endpoint.network_service_labels["a"].labels["app"], "fw");
        assert_eq!(endpoint.network_service_labels["b"].labels["app"], "fw");
        assert_eq!(endpoint.url, "file:///run/netns/x");
    }

    #[test]
    fn plumbing_is_said_in_the_way_of_the_api() {
        let endpoint = endpoint("tieline register --service a --service b --name n --plumbing transparent");
        for service in ["a", "b"] {
            assert_eq!(
                endpoint.network_service_labels[service].labels["tieline.io/plumbing"],
                "transparent"
            );
        }
    }

    #[test]
    fn an_interface_is_named_by_its_url_and_nothing_means_the_caller() {
        assert_eq!(
            endpoint("tieline register --service a --name n --interface tap7").url,
            "interface:///tap7"
        );
        assert_eq!(endpoint("tieline register --service a --name n").url, "");
    }
}
