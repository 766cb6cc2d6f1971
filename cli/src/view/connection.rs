//! Connections and the events about them.

use std::{collections::BTreeMap, time::SystemTime};

use prost_types::Timestamp;
use serde::Serialize;
use tieline_proto::{
    connection::{Connection, ConnectionEvent, ConnectionEventType, State},
    connectioncontext::PolicyRoute,
    tieline::admin::v1::{ConnectionBranch, ConnectionStatus},
};

use super::text::{join, labels, or_dash, path, remaining, sorted, time};
use crate::output::{Row, fields};

/// How long something lives that its node keeps.
pub(super) const KEPT: &str = "with its workload";

/// A Connection: a vWire as its client and control know it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ConnectionView {
    pub(crate) id: String,
    pub(crate) network_service: String,
    pub(crate) network_service_endpoint_name: String,
    pub(crate) state: &'static str,
    pub(crate) payload: String,
    /// The interface in the client's namespace.
    pub(crate) interface: String,
    /// The client's side.
    pub(crate) src_ip_addrs: Vec<String>,
    /// The endpoint's side.
    pub(crate) dst_ip_addrs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) src_routes: Vec<String>,
    /// Packets that go by routes of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) policies: Vec<String>,
    /// Prefixes that the client has for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) extra_prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) name_servers: Vec<String>,
    pub(crate) mtu: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) expires: String,
    #[serde(skip)]
    pub(crate) expires_in: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
}

/// Where control put it; a client does not see this.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Placement {
    pub(crate) node: String,
    pub(crate) client_netns: String,
    /// What is proven of the client.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attested_labels: BTreeMap<String, String>,
    /// Where it leads; none: it is parked.
    pub(crate) branches: Vec<BranchPlacement>,
    /// The endpoints that it is switched to when the first branch fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) backup: Vec<String>,
    pub(crate) generation: u64,
    /// Why it is DOWN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// A circuit of a connection.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct BranchPlacement {
    /// The wiring that made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) wiring: String,
    /// The flows that take it; none: all that no other branch takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) traffic: Vec<String>,
    pub(crate) weight: u32,
    /// The endpoints that packets pass, the terminating one last.
    pub(crate) path: Vec<String>,
    pub(crate) endpoint_attachment: String,
    pub(crate) endpoint_interface: String,
}

impl Placement {
    /// Every circuit, one below the other.
    fn leads_to(&self) -> String {
        let circuits: Vec<_> = self.branches.iter().map(BranchPlacement::describe).collect();
        circuits.join("\n")
    }
}

impl From<ConnectionBranch> for BranchPlacement {
    fn from(branch: ConnectionBranch) -> Self {
        Self {
            wiring: branch.wiring,
            traffic: branch.traffic,
            weight: branch.weight,
            path: branch.path,
            endpoint_attachment: branch.endpoint_attachment,
            endpoint_interface: branch.endpoint_interface,
        }
    }
}

impl BranchPlacement {
    /// `tcp/80: firewall-1 → gateway-1 (netns /run/netns/gw, nse-1)`.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        if !self.traffic.is_empty() {
            text = format!("{}: ", self.traffic.join(", "));
        }
        text + &format!(
            "{} ({}, {})",
            path(self.path.iter().map(String::as_str)),
            self.endpoint_attachment,
            self.endpoint_interface
        )
    }
}

/// `from 10.0.0.0/8, proto 6, dst_port 443: 192.0.2.0/24`; without routes: everything.
fn policy(policy: &PolicyRoute) -> String {
    let parts = [
        ("from", &policy.from),
        ("proto", &policy.proto),
        ("dst_port", &policy.dst_port),
        ("src_port", &policy.src_port),
    ];
    let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
    let packets: Vec<String> = given.map(|(name, value)| format!("{name} {value}")).collect();
    let routes: Vec<&str> = policy.routes.iter().map(|route| route.prefix.as_str()).collect();
    let routes = if routes.is_empty() {
        "everything".to_owned()
    } else {
        routes.join(", ")
    };
    format!("{}: {routes}", packets.join(", "))
}

impl ConnectionView {
    /// The client's view.
    pub(crate) fn of_client(connection: Connection, now: SystemTime) -> Self {
        let expires = lease_end(&connection);
        Self::new(connection, expires, now)
    }

    /// Control's view.
    pub(crate) fn of_control(status: ConnectionStatus, now: SystemTime) -> Self {
        let mut view = Self::new(status.connection.unwrap_or_default(), status.expires, now);
        if !status.client_interface.is_empty() {
            view.interface = status.client_interface;
        }
        view.placement = Some(Placement {
            node: status.node,
            client_netns: status.client_netns,
            attested_labels: sorted(status.labels),
            branches: status.branches.into_iter().map(BranchPlacement::from).collect(),
            backup: status.backup,
            generation: status.generation,
            reason: status.reason,
        });
        view
    }

    fn new(connection: Connection, expires: Option<Timestamp>, now: SystemTime) -> Self {
        let state = state_name(connection.state());
        let context = connection.context.unwrap_or_default();
        let ip = context.ip_context.unwrap_or_default();
        let interface = connection
            .mechanism
            .and_then(|mechanism| mechanism.parameters.get("name").cloned());
        Self {
            id: connection.id,
            network_service: connection.network_service,
            network_service_endpoint_name: connection.network_service_endpoint_name,
            state,
            payload: connection.payload,
            interface: interface.unwrap_or_default(),
            src_ip_addrs: ip.src_ip_addrs,
            dst_ip_addrs: ip.dst_ip_addrs,
            src_routes: ip.src_routes.into_iter().map(|route| route.prefix).collect(),
            policies: ip.policies.iter().map(policy).collect(),
            extra_prefixes: ip.extra_prefixes,
            name_servers: context
                .dns_context
                .into_iter()
                .flat_map(|dns| dns.configs)
                .flat_map(|config| config.dns_server_ips)
                .collect(),
            mtu: context.mtu,
            labels: sorted(connection.labels),
            expires: time(expires),
            expires_in: expires.map_or_else(|| KEPT.to_owned(), |_| remaining(expires, now)),
            placement: None,
        }
    }

    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let mut pairs = vec![
            ("Id", self.id.clone()),
            ("NetworkService", self.network_service.clone()),
            ("Endpoint", or_dash(&self.network_service_endpoint_name)),
            ("State", self.state.to_owned()),
            ("Payload", or_dash(&self.payload)),
            ("Interface", or_dash(&self.interface)),
            ("Address here", or_dash(&self.src_ip_addrs.join("\n"))),
            ("Address there", or_dash(&self.dst_ip_addrs.join("\n"))),
            ("Routes", or_dash(&self.src_routes.join("\n"))),
            ("MTU", self.mtu.to_string()),
            ("Labels", labels(&self.labels)),
            ("Expires in", self.expires_in.clone()),
        ];
        for (name, values) in [
            ("Policies", &self.policies),
            ("Own prefixes", &self.extra_prefixes),
            ("Name servers", &self.name_servers),
        ] {
            if !values.is_empty() {
                pairs.push((name, values.join("\n")));
            }
        }
        if let Some(placement) = &self.placement {
            pairs.extend([
                ("Node", or_dash(&placement.node)),
                ("Client namespace", or_dash(&placement.client_netns)),
                ("Attested labels", labels(&placement.attested_labels)),
                ("Leads to", or_dash(&placement.leads_to())),
                ("Generation", placement.generation.to_string()),
            ]);
            if !placement.backup.is_empty() {
                pairs.push(("Backup", path(placement.backup.iter().map(String::as_str))));
            }
            if !placement.reason.is_empty() {
                pairs.push(("Reason", placement.reason.clone()));
            }
        }
        fields(&pairs)
    }
}

impl Row for ConnectionView {
    const HEADINGS: &'static [&'static str] = &[
        "ID",
        "SERVICE",
        "ENDPOINT",
        "STATE",
        "INTERFACE",
        "CLIENT ADDRESS",
        "ENDPOINT ADDRESS",
        "EXPIRES IN",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.network_service.clone(),
            or_dash(&self.network_service_endpoint_name),
            self.state.to_owned(),
            or_dash(&self.interface),
            join(&self.src_ip_addrs),
            join(&self.dst_ip_addrs),
            self.expires_in.clone(),
        ]
    }
}

/// When the connection ends unless it is refreshed: the earliest end on its path.
pub(crate) fn lease_end(connection: &Connection) -> Option<Timestamp> {
    let segments = connection.path.iter().flat_map(|path| &path.path_segments);
    segments
        .filter_map(|segment| segment.expires)
        .min_by_key(|end| (end.seconds, end.nanos))
}

pub(super) const fn state_name(state: State) -> &'static str {
    match state {
        State::Up => "UP",
        State::Down => "DOWN",
        State::RefreshRequested => "REFRESH_REQUESTED",
        State::ReselectRequested => "RESELECT_REQUESTED",
    }
}

/// One connection in an event.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EventView {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connection: Option<ConnectionView>,
}

impl EventView {
    /// One view per connection, by id; an event without any (nothing there yet) is one view without connection.
    pub(crate) fn of(event: ConnectionEvent, now: SystemTime) -> Vec<Self> {
        let kind = match event.r#type() {
            ConnectionEventType::InitialStateTransfer => "INITIAL_STATE_TRANSFER",
            ConnectionEventType::Update => "UPDATE",
            ConnectionEventType::Delete => "DELETE",
        };
        if event.connections.is_empty() {
            return vec![Self {
                kind,
                connection: None,
            }];
        }
        let ordered = event.connections.into_iter().collect::<BTreeMap<_, _>>();
        ordered
            .into_values()
            .map(|connection| Self {
                kind,
                connection: Some(ConnectionView::of_client(connection, now)),
            })
            .collect()
    }

    /// A line of a stream: columns of fixed width, as later lines are not known yet.
    pub(crate) fn line(&self) -> String {
        let Some(connection) = &self.connection else {
            return format!("{:<23}(none)\n", self.kind);
        };
        let line = format!(
            "{:<23}{:<38}{:<20}{:<20}{:<20}{:<16}{}",
            self.kind,
            connection.id,
            connection.network_service,
            or_dash(&connection.network_service_endpoint_name),
            connection.state,
            or_dash(&connection.interface),
            join(&connection.src_ip_addrs),
        );
        line.trim_end().to_owned() + "\n"
    }

    /// The headings of [`Self::line`].
    pub(crate) fn heading() -> String {
        format!(
            "{:<23}{:<38}{:<20}{:<20}{:<20}{:<16}{}\n",
            "EVENT", "ID", "SERVICE", "ENDPOINT", "STATE", "INTERFACE", "CLIENT ADDRESS"
        )
    }
}
