//! `tieline get`: lists.

use std::{collections::HashSet, time::SystemTime};

use clap::Args;
use tieline_model::{Object, yaml};
use tieline_proto::tieline::admin::v1::{self as proto, ListRequest, ListWiresRequest};

use super::kind::{KINDS_HELP, Kind};
use crate::{
    args::Global,
    error::Failure,
    exit::Exit,
    output::{self, Format, Row},
    view::{ConnectionView, EndpointView, NodeRow, ServiceView, WireView, WiringView},
};

/// Flags of `get`.
#[derive(Args, Debug)]
#[command(after_help = format!("{KINDS_HELP}\n
Examples:
  tieline get networkservices
  tieline get conn -o json
  tieline get networkservices -o yaml        in the form that `tieline apply` takes
  tieline get wires 4f2c…           counters of one wire, read from the kernel"))]
pub(crate) struct GetArgs {
    /// What to list
    #[arg(
        value_enum,
        ignore_case = true,
        value_name = "KIND",
        hide_possible_values = true
    )]
    kind: Kind,
    /// Only these; ids for connections and wires [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Lists.
pub(crate) async fn run(global: &Global, args: &GetArgs) -> Result<Exit, Failure> {
    let GetArgs { kind, names } = args;
    let nothing = format!("there are no {kind}s", kind = kind.singular());
    match (kind, global.output) {
        // The form of files, so that it can be edited and applied again.
        (Kind::NetworkService, Format::Yaml) => documents(service_objects(global, names).await?),
        (Kind::Endpoint, Format::Yaml) => documents(endpoint_objects(global, names).await?),
        (Kind::Wiring, Format::Yaml) => documents(wiring_objects(global, names).await?),
        (Kind::Wiring, _) => show(global, &wirings(global, names).await?, &nothing),
        (Kind::NetworkService, _) => show(global, &services(global, names).await?, &nothing),
        (Kind::Endpoint, _) => show(global, &endpoints(global, names).await?, &nothing),
        (Kind::Connection, _) => show(global, &connections(global, names).await?, &nothing),
        (Kind::Node, _) => show(global, &nodes(global, names).await?, &nothing),
        (Kind::Wire, _) => show(global, &wires(global, names).await?, &nothing),
    }
}

fn show<R: Row>(global: &Global, rows: &[R], nothing: &str) -> Result<Exit, Failure> {
    output::list(global.output, rows, nothing)?;
    Ok(Exit::Ok)
}

fn documents(objects: Vec<proto::object::Object>) -> Result<Exit, Failure> {
    let objects = objects
        .into_iter()
        .map(|object| Object::try_from(proto::Object { object: Some(object) }))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::Answer)?;
    output::text(&yaml::render(&objects).map_err(Failure::Render)?)?;
    Ok(Exit::Ok)
}

async fn service_objects(global: &Global, names: &[String]) -> Result<Vec<proto::object::Object>, Failure> {
    let statuses = service_statuses(global, names).await?.into_iter();
    Ok(statuses
        .filter_map(|status| status.service)
        .map(proto::object::Object::NetworkService)
        .collect())
}

async fn endpoint_objects(global: &Global, names: &[String]) -> Result<Vec<proto::object::Object>, Failure> {
    let statuses = endpoint_statuses(global, names).await?.into_iter();
    let declared = |status: proto::EndpointStatus| {
        // A file declares an endpoint; the lease of a registration is not in it.
        let mut endpoint = status.endpoint.unwrap_or_default();
        (endpoint.expiration_time, endpoint.initial_registration_time) = (None, None);
        proto::NetworkServiceEndpoint {
            endpoint: Some(endpoint),
            node: status.node,
            labels: status.labels,
        }
    };
    Ok(statuses
        .map(declared)
        .map(proto::object::Object::Endpoint)
        .collect())
}

async fn wiring_objects(global: &Global, names: &[String]) -> Result<Vec<proto::object::Object>, Failure> {
    let statuses = wiring_statuses(global, names).await?.into_iter();
    Ok(statuses
        .filter_map(|status| status.wiring)
        .map(proto::object::Object::NetworkServiceWiring)
        .collect())
}

/// NetworkServiceWirings of these names, or all; a name without object is an error.
pub(crate) async fn wirings(global: &Global, names: &[String]) -> Result<Vec<WiringView>, Failure> {
    let statuses = wiring_statuses(global, names).await?;
    Ok(statuses.into_iter().map(WiringView::from).collect())
}

async fn wiring_statuses(
    global: &Global,
    names: &[String],
) -> Result<Vec<proto::NetworkServiceWiringStatus>, Failure> {
    let items = super::admin(global)
        .await?
        .list_network_service_wirings(list(names))
        .await?
        .into_inner()
        .items;
    ordered(Kind::Wiring, items, names, |status| {
        status.wiring.as_ref().map_or("", |wiring| &wiring.name)
    })
}

/// NetworkServices of these names, or all; a name without object is an error.
pub(crate) async fn services(global: &Global, names: &[String]) -> Result<Vec<ServiceView>, Failure> {
    Ok(service_statuses(global, names)
        .await?
        .into_iter()
        .map(ServiceView::from)
        .collect())
}

/// Endpoints of these names, or all; a name without object is an error.
pub(crate) async fn endpoints(global: &Global, names: &[String]) -> Result<Vec<EndpointView>, Failure> {
    let now = SystemTime::now();
    Ok(endpoint_statuses(global, names)
        .await?
        .into_iter()
        .map(|status| EndpointView::new(status, now))
        .collect())
}

async fn service_statuses(
    global: &Global,
    names: &[String],
) -> Result<Vec<proto::NetworkServiceStatus>, Failure> {
    let items = super::admin(global)
        .await?
        .list_network_services(list(names))
        .await?
        .into_inner()
        .items;
    ordered(Kind::NetworkService, items, names, |status| {
        let service = status
            .service
            .as_ref()
            .and_then(|service| service.service.as_ref());
        service.map_or("", |service| &service.name)
    })
}

async fn endpoint_statuses(global: &Global, names: &[String]) -> Result<Vec<proto::EndpointStatus>, Failure> {
    let items = super::admin(global)
        .await?
        .list_endpoints(list(names))
        .await?
        .into_inner()
        .items;
    ordered(Kind::Endpoint, items, names, |status| {
        status.endpoint.as_ref().map_or("", |endpoint| &endpoint.name)
    })
}

/// Connections with these ids, or all; an id without object is an error.
pub(crate) async fn connections(global: &Global, names: &[String]) -> Result<Vec<ConnectionView>, Failure> {
    let now = SystemTime::now();
    let answer = super::admin(global)
        .await?
        .list_connections(list(names))
        .await?
        .into_inner();
    let views = answer
        .items
        .into_iter()
        .map(|status| ConnectionView::of_control(status, now))
        .collect();
    ordered(Kind::Connection, views, names, |view: &ConnectionView| &view.id)
}

/// Nodes of these names, or all; a name without object is an error.
pub(crate) async fn nodes(global: &Global, names: &[String]) -> Result<Vec<NodeRow>, Failure> {
    let answer = super::admin(global)
        .await?
        .list_nodes(list(names))
        .await?
        .into_inner();
    ordered(
        Kind::Node,
        answer.items.into_iter().map(NodeRow::from).collect(),
        names,
        |view: &NodeRow| &view.name,
    )
}

/// Wires of this node with these connection ids, or all; an id without object is an error.
pub(crate) async fn wires(global: &Global, names: &[String]) -> Result<Vec<WireView>, Failure> {
    let request = ListWiresRequest {
        connection_ids: names.to_vec(),
    };
    let answer = super::node(global).await?.list_wires(request).await?.into_inner();
    let views = answer.wires.into_iter().map(WireView::from).collect();
    ordered(Kind::Wire, views, names, |view: &WireView| &view.connection_id)
}

fn list(names: &[String]) -> ListRequest {
    ListRequest {
        names: names.to_vec(),
    }
}

/// Sorted by name, and complete.
fn ordered<V>(
    kind: Kind,
    mut views: Vec<V>,
    names: &[String],
    key: fn(&V) -> &str,
) -> Result<Vec<V>, Failure> {
    let present = views.iter().map(key).collect::<HashSet<_>>();
    if let Some(missing) = names.iter().find(|name| !present.contains(name.as_str())) {
        return Err(Failure::NotFound {
            kind: kind.singular(),
            name: missing.clone(),
        });
    }
    views.sort_by(|a, b| key(a).cmp(key(b)));
    Ok(views)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_an_error_and_the_rest_is_sorted() {
        let views = || vec!["b".to_owned(), "a".to_owned()];
        assert_eq!(ordered(Kind::Node, views(), &[], |v| v).unwrap(), ["a", "b"]);
        let error = ordered(Kind::Node, views(), &["a".into(), "c".into()], |v| v).unwrap_err();
        assert_eq!(error.exit(), Exit::NotFound);
        assert_eq!(error.to_string(), "there is no node 'c'");
    }
}
