//! Requests: new connections, refreshes and changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tieline_model::{
    ClientSide, Connection, ConnectionId, ConnectionRequest, ConnectionState, Context, IfName, Invalid,
    Lease, MacAddr, Mtu, NetworkService, Path, Payload, Side, Timestamp, Workload, derive_mac,
};
use tieline_planner::{Choice, Client, Told, lower};

use crate::{
    ChangeKind, Granted, NodeGeneration, Record, Refusal, Registry,
    command::granted_until,
    context::{For, without_given},
    ipam::{Proposal, Wanted},
    way::Asking,
};

const FIELD_SERVICE: &str = "connection.network_service";
const FIELD_ENDPOINT: &str = "connection.network_service_endpoint_name";
const FIELD_INTERFACE: &str = "connection.mechanism.parameters[name]";
const FIELD_NETNS: &str = "connection.mechanism.parameters[inodeURL]";
const FIELD_PAYLOAD: &str = "connection.payload";
const FIELD_EXPIRES: &str = "connection.path.path_segments[0].expires";
const FIELDS_ADDRESSES: [&str; 2] = [
    "connection.context.ip_context.src_ip_addrs",
    "connection.context.ip_context.dst_ip_addrs",
];
const FIELDS_MAC: [&str; 2] = [
    "connection.context.ethernet_context.src_mac",
    "connection.context.ethernet_context.dst_mac",
];

impl Registry {
    /// Makes, refreshes or changes the connection of the request's id.
    pub(crate) fn request(
        &mut self,
        now: Timestamp,
        caller: &Workload,
        request: ConnectionRequest,
    ) -> Result<Granted, Refusal> {
        let service = self.tables.services().get(&request.service).cloned();
        let unknown = || Refusal::UnknownService {
            field: FIELD_SERVICE,
            name: request.service.to_string(),
        };
        let service = service.ok_or_else(unknown)?;
        let mut request = request;
        let connection = self.tables.connections.get(&request.id).cloned();
        without_given(&mut request.src_routes, &service, connection.as_deref());
        match connection {
            Some(connection) => self.refresh(now, caller, request, &service, &connection),
            None => self.establish(now, caller, request, &service),
        }
    }

    /// When a connection ends unless it is refreshed; `None`: its node keeps it.
    fn lease(
        &self,
        kept_by_node: bool,
        asked: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Invalid> {
        let most: Lease = self.config.max_connection_lease;
        let until = || granted_until(FIELD_EXPIRES, asked, now, most, most);
        (!kept_by_node).then(until).transpose()
    }

    /// What was asked for, at most the service's; or the service's, or the default.
    fn mtu(&self, request: &ConnectionRequest, service: &NetworkService) -> Mtu {
        let most = service.mtu();
        match request.mtu {
            Some(asked) => most.map_or(asked, |most| asked.min(most)),
            None => most.unwrap_or(self.config.default_mtu),
        }
    }

    fn refresh(
        &mut self,
        now: Timestamp,
        caller: &Workload,
        request: ConnectionRequest,
        service: &NetworkService,
        connection: &Arc<Connection>,
    ) -> Result<Granted, Refusal> {
        if !connection.owner.admits(caller) {
            return Err(Refusal::ForeignConnection { id: request.id });
        }
        check_unchangeable(&request, caller, connection)?;
        check_payload(&request, service, Some(connection.payload))?;
        // A refresh with the answer of the last request asks for nothing new.
        let asked = request.expires.filter(|at| Some(*at) != connection.expires);
        let expires = self.lease(request.kept_by_node, asked, now)?;
        let context = self.context(For {
            caller,
            service,
            request: &request,
            proposal: &Proposal::default(),
            has: Some(connection),
        })?;
        let mut changed = Connection::clone(connection);
        changed.context = context;
        changed.mtu = self.mtu(&request, service);
        changed.payload = service.payload();
        changed.expires = expires;
        changed.path = path_of(&changed, &request.client_name);
        let says_otherwise = request.labels != connection.labels;
        let told_otherwise = says_otherwise || caller.labels != connection.attested;
        changed.labels = request.labels;
        changed.attested.clone_from(&caller.labels);
        changed.src_routes = request.src_routes;
        changed.dst_routes = request.dst_routes;
        changed.excluded_prefixes = request.excluded_prefixes;
        // What a client asks for is refused if there is no way; what is proven of it otherwise takes the way it has.
        if says_otherwise && !connection.is_parked()
            || told_otherwise && changed.state == ConnectionState::Pending
        {
            self.way_of(&changed, &Told::new(), &[])?;
        }
        let down = matches!(connection.state, ConnectionState::Down { .. }) && !connection.is_parked();
        if down || lower(&changed) != lower(connection) {
            self.check_connected(caller, connection)?;
            let planned = self.touch_wire(&connection.client.node, &connection.id);
            changed.generation = planned.generation;
            self.await_wire(&planned.node, &connection.id, planned.generation);
        }
        let id = changed.id.clone();
        let changed = Arc::new(changed);
        self.touch_record(Record::Connection, &id);
        if changed.state != ConnectionState::Pending {
            self.tell_connection(ChangeKind::Update, &changed);
        }
        self.put_changed(changed)?;
        self.pass_routes_on(connection);
        if told_otherwise {
            self.select_again(&id, &Told::new());
        }
        let connection = self
            .tables
            .connections
            .get(&id)
            .ok_or_else(|| inconsistent(&id))?;
        Ok(Granted {
            settles: self.settles(&id),
            connection: Connection::clone(connection),
        })
    }

    /// Puts a connection whose names were drafted beside all others: that one is taken is our own fault.
    fn put_changed(&mut self, connection: Arc<Connection>) -> Result<(), Refusal> {
        let id = connection.id.clone();
        let put = self.tables.replace_connection(connection);
        put.map_err(|_| inconsistent(&id))
    }

    fn check_connected(&self, caller: &Workload, connection: &Connection) -> Result<(), Refusal> {
        let node = &connection.client.node;
        if *node == caller.node && self.nodes.get(node).is_some_and(|node| node.connected) {
            return Ok(());
        }
        Err(Refusal::NodeAway { node: node.clone() })
    }

    fn settles(&self, id: &ConnectionId) -> Option<NodeGeneration> {
        let generation = *self.awaited.get(id)?;
        let node = self.tables.connections.get(id)?.client.node.clone();
        Some(NodeGeneration { node, generation })
    }

    fn establish(
        &mut self,
        now: Timestamp,
        caller: &Workload,
        request: ConnectionRequest,
        service: &NetworkService,
    ) -> Result<Granted, Refusal> {
        check_payload(&request, service, None)?;
        let expires = self.lease(request.kept_by_node, request.expires, now)?;
        self.check_node(caller)?;
        let way = self.way(&Asking {
            id: &request.id,
            service,
            client: Client {
                node: &caller.node,
                netns: &caller.netns,
                labels: &request.labels,
                attested: &caller.labels,
            },
            wanted: request.endpoint.as_ref(),
            connection: None,
            told: &Told::new(),
            avoid: &[],
        })?;
        let (proposal, context) = self.grants(caller, service, &request)?;
        let interface = self.client_interface(caller, &request)?;
        let asked = request.interface.is_some();
        let mut connection = Connection {
            mtu: self.mtu(&request, service),
            service: request.service,
            payload: service.payload(),
            labels: request.labels,
            attested: caller.labels.clone(),
            state: ConnectionState::Pending,
            client: ClientSide {
                node: caller.node.clone(),
                netns: caller.netns.clone(),
                interface,
                mac: derive_mac(&request.id, Side::Client),
                addresses: proposal.client.clone(),
            },
            server_addresses: proposal.endpoint.clone(),
            branches: way.branches,
            backup: way.backup,
            draining: Vec::new(),
            lost: BTreeMap::new(),
            before: None,
            former: Vec::new(),
            report: way.report,
            src_routes: request.src_routes,
            dst_routes: request.dst_routes,
            excluded_prefixes: request.excluded_prefixes,
            context,
            expires,
            path: Path::default(),
            generation: 0,
            owner: caller.owner(),
            id: request.id,
        };
        connection.path = path_of(&connection, &request.client_name);
        check_macs(&request.macs, connection.client.mac, connection.far_mac()).map_err(
            |(field, value)| {
                Invalid::new(
                    field,
                    value,
                    "hardware addresses come from the wire: leave it out",
                )
            },
        )?;
        let granted = self.put_new(&way.choices, connection, &proposal)?;
        if asked {
            self.asked.insert(granted.connection.id.clone());
        }
        Ok(granted)
    }

    /// Addresses and context of a new connection.
    fn grants(
        &self,
        caller: &Workload,
        service: &NetworkService,
        request: &ConnectionRequest,
    ) -> Result<(Proposal, Context), Refusal> {
        let proposal = match &request.reserved {
            Some(reserved) => self.tables.addresses.take_over(reserved)?,
            None if service.name().domain().is_some() => {
                return Err(Refusal::Inconsistent {
                    what: "reservation of connection",
                    key: request.id.to_string(),
                });
            }
            None => self.tables.addresses.propose(&Wanted {
                service: service.name().as_str(),
                prefixes: self.prefixes_of(service),
                excluded: self.excluded(caller, service, request),
                asked: [&request.src_addresses, &request.dst_addresses],
            })?,
        };
        let context = self.context(For {
            caller,
            service,
            request,
            proposal: &proposal,
            has: None,
        })?;
        Ok((proposal, context))
    }

    /// Puts a connection that was checked whole: from here nothing is refused but what is our own fault.
    fn put_new(
        &mut self,
        choices: &[Choice],
        mut connection: Connection,
        proposal: &Proposal,
    ) -> Result<Granted, Refusal> {
        let (id, node) = (connection.id.clone(), connection.client.node.clone());
        connection.generation = self.next_generation(&node);
        let granted = connection.clone();
        if self.tables.put_connection(Arc::new(connection)).is_err() {
            return Err(inconsistent(&id));
        }
        for prefix in self.tables.addresses.remember(proposal) {
            self.touch_record(Record::Addresses, &prefix);
        }
        self.note_turn(choices, &granted.service);
        self.touch_record(Record::Connection, &id);
        let planned = self.touch_wire(&node, &id);
        self.await_wire(&node, &id, planned.generation);
        Ok(Granted {
            connection: granted,
            settles: Some(planned),
        })
    }

    fn check_node(&self, caller: &Workload) -> Result<(), Refusal> {
        let node = &caller.node;
        let Some(state) = self.nodes.get(node).filter(|state| state.connected) else {
            return Err(Refusal::NodeAway { node: node.clone() });
        };
        let most = usize::try_from(state.max_wires).unwrap_or(usize::MAX);
        if self.wires_of_node(node) >= most {
            return Err(Refusal::NodeFull {
                node: node.clone(),
                max: state.max_wires,
            });
        }
        Ok(())
    }

    pub(crate) fn prefixes_of<'a>(&'a self, service: &'a NetworkService) -> &'a [ipnet::IpNet] {
        if service.prefixes().is_empty() {
            &self.config.default_prefixes
        } else {
            service.prefixes()
        }
    }

    fn client_interface(&self, caller: &Workload, request: &ConnectionRequest) -> Result<IfName, Refusal> {
        let names = &self.tables.names;
        let Some(asked) = &request.interface else {
            return Ok(names.first_free(&caller.node, &caller.netns, Side::Client, &BTreeSet::new())?);
        };
        match names.holder(&caller.node, &caller.netns, asked) {
            None => Ok(asked.clone()),
            Some(by) => Err(Refusal::InterfaceTaken {
                field: FIELD_INTERFACE,
                interface: asked.clone(),
                netns: caller.netns.to_string(),
                by: by.clone(),
            }),
        }
    }
}

/// The service decides about the payload; a client may say what it expects, or what its connection has.
fn check_payload(
    request: &ConnectionRequest,
    service: &NetworkService,
    has: Option<Payload>,
) -> Result<(), Invalid> {
    match request.payload {
        Some(payload) if payload != service.payload() && has != Some(payload) => {
            let rule = format!(
                "NetworkService {} carries {}: ask for that, or for none",
                service.name(),
                service.payload()
            );
            Err(Invalid::new(FIELD_PAYLOAD, payload.as_str(), rule))
        }
        _ => Ok(()),
    }
}

/// What a connection keeps for life.
fn check_unchangeable(
    request: &ConnectionRequest,
    caller: &Workload,
    connection: &Connection,
) -> Result<(), Refusal> {
    let keeps = |field: &'static str, value: String, has: String| {
        Err(Refusal::NotChangeable {
            field,
            value,
            id: connection.id.clone(),
            has,
        })
    };
    let client = &connection.client;
    if request.service != connection.service {
        return keeps(
            FIELD_SERVICE,
            request.service.to_string(),
            connection.service.to_string(),
        );
    }
    if caller.node != client.node || !caller.netns.is_same(&client.netns) {
        return keeps(FIELD_NETNS, caller.netns.to_string(), client.netns.to_string());
    }
    // A client that was not told yet that its connection was moved names where it was before.
    if let (Some(asked), Some(has)) = (&request.endpoint, connection.endpoint())
        && asked != has
        && !connection.former.contains(asked)
    {
        return keeps(FIELD_ENDPOINT, asked.to_string(), has.to_string());
    }
    if let Some(asked) = request
        .interface
        .as_ref()
        .filter(|asked| **asked != client.interface)
    {
        return keeps(FIELD_INTERFACE, asked.to_string(), client.interface.to_string());
    }
    let sides = [
        (&request.src_addresses, &client.addresses),
        (&request.dst_addresses, &connection.server_addresses),
    ];
    for (field, (asked, has)) in FIELDS_ADDRESSES.into_iter().zip(sides) {
        if let Some(other) = asked.iter().find(|one| !has.contains(one)) {
            return keeps(
                field,
                other.to_string(),
                has.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
            );
        }
    }
    match check_macs(&request.macs, client.mac, connection.far_mac()) {
        Ok(()) => Ok(()),
        Err((field, value)) => keeps(field, value, format!("its own for {}", client.interface)),
    }
}

fn check_macs(
    asked: &[Option<MacAddr>; 2],
    client: MacAddr,
    server: Option<MacAddr>,
) -> Result<(), (&'static str, String)> {
    for ((field, asked), has) in FIELDS_MAC.into_iter().zip(asked).zip([Some(client), server]) {
        if let Some(other) = asked.filter(|asked| Some(*asked) != has) {
            return Err((field, other.to_string()));
        }
    }
    Ok(())
}

/// Who a connection passes. A refresh that gives no name keeps the one that the client gave before.
fn path_of(connection: &Connection, client_name: &str) -> Path {
    let before = connection
        .path
        .segments
        .first()
        .map_or(connection.id.as_str(), |segment| segment.name.as_str());
    let client = if client_name.is_empty() {
        before
    } else {
        client_name
    };
    connection.path_from(client)
}

fn inconsistent(id: &ConnectionId) -> Refusal {
    Refusal::Inconsistent {
        what: "index entry of connection",
        key: id.to_string(),
    }
}
