//! The way of one connection: what selection says, and the circuits along it.

use tieline_model::{
    Branch, Chosen, Circuit, Connection, ConnectionId, EndpointName, NetworkService, Plumbing, Report,
};
use tieline_planner::{BranchPath, Choice, Client, SelectInput, Selection, Told, backup, select};

use crate::{Refusal, Registry};

/// Where a connection is to lead.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) branches: Vec<Branch>,
    pub(crate) backup: Option<Circuit>,
    pub(crate) report: Report,
    pub(crate) choices: Vec<Choice>,
}

/// Whose way is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) id: &'a ConnectionId,
    pub(crate) service: &'a NetworkService,
    pub(crate) client: Client<'a>,
    pub(crate) wanted: Option<&'a EndpointName>,
    /// The connection, if it is there.
    pub(crate) connection: Option<&'a Connection>,
    pub(crate) told: &'a Told,
    pub(crate) avoid: &'a [EndpointName],
}

impl Registry {
    /// Selects, and drafts the circuits.
    pub(crate) fn way(&self, asking: &Asking<'_>) -> Result<Way, Refusal> {
        let selection = self.selection(asking)?;
        let spare: Vec<BranchPath> = asking
            .connection
            .and_then(|connection| connection.backup.as_ref())
            .map(|circuit| path_of(None, circuit))
            .into_iter()
            .collect();
        let lost = lost_by(asking);
        let input = SelectInput {
            avoid: &lost,
            ..self.input(asking, &spare)
        };
        let spare = backup(&self.tables.inventory, &self.tables, &input, &selection.branches);
        let paths: Vec<Vec<EndpointName>> = selection
            .branches
            .iter()
            .chain(&spare)
            .map(|branch| branch.names().cloned().collect())
            .collect();
        let has = asking.connection.into_iter().flat_map(Connection::circuits);
        let mut circuits = self.circuits(asking.id, &paths, has)?;
        let backup = spare.and_then(|_| circuits.pop());
        let branches = selection.branches.into_iter().zip(circuits);
        let branches = branches.map(|(path, circuit)| Branch {
            wiring: path.wiring,
            traffic: path.traffic,
            weight: path.weight,
            circuit,
        });
        Ok(Way {
            branches: branches.collect(),
            backup,
            report: selection.report,
            choices: selection.choices,
        })
    }

    /// Selects alone. What the connection's node has lost is taken only if there is no other way.
    pub(crate) fn selection(&self, asking: &Asking<'_>) -> Result<Selection, Refusal> {
        let current: Vec<BranchPath> = asking.connection.map(paths_of).unwrap_or_default();
        let input = self.input(asking, &current);
        let mut lost = lost_by(asking);
        if !lost.is_empty() {
            lost.extend_from_slice(asking.avoid);
            let avoid = &lost;
            let past = select(
                &self.tables.inventory,
                &self.tables,
                &SelectInput { avoid, ..input },
            );
            if let Ok(selection) = past {
                return Ok(selection);
            }
        }
        Ok(select(&self.tables.inventory, &self.tables, &input)?)
    }

    fn input<'a>(&self, asking: &Asking<'a>, current: &'a [BranchPath]) -> SelectInput<'a> {
        let turn = self.tables.turns.get(asking.service.name());
        SelectInput {
            id: asking.id,
            service: asking.service,
            client: asking.client,
            wanted: asking.wanted,
            current,
            told: asking.told,
            avoid: asking.avoid,
            turn: turn.copied().unwrap_or_default(),
        }
    }
}

/// What the node of a connection has lost.
fn lost_by(asking: &Asking<'_>) -> Vec<EndpointName> {
    let lost = asking.connection.map(|connection| connection.lost.keys());
    lost.into_iter().flatten().cloned().collect()
}

/// Who asked for a connection.
pub(crate) fn client_of(connection: &Connection) -> Client<'_> {
    Client {
        node: &connection.client.node,
        netns: &connection.client.netns,
        labels: &connection.labels,
        attested: &connection.attested,
    }
}

fn paths_of(connection: &Connection) -> Vec<BranchPath> {
    let path = |branch: &Branch| BranchPath {
        traffic: branch.traffic.clone(),
        weight: branch.weight,
        ..path_of(branch.wiring.as_ref(), &branch.circuit)
    };
    // Where it is not, it is rather led over what stands already than elsewhere: its node may have done so.
    let backup = connection.backup.iter().map(|circuit| path_of(None, circuit));
    connection.branches.iter().map(path).chain(backup).collect()
}

fn path_of(wiring: Option<&tieline_model::WiringName>, circuit: &Circuit) -> BranchPath {
    let hops = circuit.hops.iter().map(|hop| Chosen {
        endpoint: hop.endpoint.clone(),
        plumbing: hop.plumbing,
    });
    let last = Chosen {
        endpoint: circuit.endpoint.clone(),
        plumbing: Plumbing::Endpoint,
    };
    BranchPath {
        wiring: wiring.cloned(),
        traffic: Vec::new(),
        weight: 1,
        path: hops.chain([last]).collect(),
    }
}
