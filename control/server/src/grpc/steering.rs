//! `tieline.admin.v1.AdminService`: where connections lead, why, and where a change leads them.

use tieline_model::{ConnectionId, EndpointName};
use tieline_proto::tieline::admin::v1 as proto;
use tieline_registry::{Command, Leg, Move, Refusal, Reply};

use super::Api;
use super::admin::count;
use crate::failure::Failure;

/// The most moves that an answer lists.
const MAX_MOVES: usize = 1000;

impl Api {
    /// Why a connection leads where it leads.
    pub(super) async fn explain(&self, id: &str) -> Result<proto::ExplainConnectionResponse, Failure> {
        let id = ConnectionId::parse("id", id)?;
        let sought = id.clone();
        let found = self
            .engine
            .look(move |registry, _| registry.connection(&sought).cloned())
            .await?;
        let connection = found.ok_or(Refusal::UnknownConnection { id })?;
        let before = connection.before.iter().flat_map(|before| &before.branches);
        Ok(proto::ExplainConnectionResponse {
            decisions: connection.report.decisions.iter().map(Into::into).collect(),
            former: connection.former.iter().map(ToString::to_string).collect(),
            before: before.map(Leg::from).map(|one| leg(&one)).collect(),
            draining: connection
                .draining
                .iter()
                .map(Leg::from)
                .map(|one| leg(&one))
                .collect(),
            connection: Some((&*connection).into()),
        })
    }

    /// Drains an endpoint, or takes it back.
    pub(super) async fn drain(
        &self,
        message: proto::DrainEndpointRequest,
    ) -> Result<proto::DrainEndpointResponse, Failure> {
        let command = Command::Drain {
            name: EndpointName::parse("name", &message.name)?,
            draining: !message.off,
        };
        match self.engine.execute(command).await? {
            Reply::Moved(moved) => Ok(proto::DrainEndpointResponse {
                moves: moves(&moved),
                moved: count(moved.len()),
            }),
            other => Err(Failure::Mismatch {
                asked: "Drain",
                got: format!("{other:?}"),
            }),
        }
    }
}

/// The first of the moves.
pub(super) fn moves(moves: &[Move]) -> Vec<proto::ConnectionMove> {
    let to_proto = |one: &Move| proto::ConnectionMove {
        connection_id: one.id.to_string(),
        network_service: one.service.to_string(),
        from: one.from.iter().map(leg).collect(),
        to: one.to.iter().map(leg).collect(),
        because: one.because.clone(),
    };
    moves.iter().take(MAX_MOVES).map(to_proto).collect()
}

fn leg(leg: &Leg) -> proto::ConnectionLeg {
    proto::ConnectionLeg {
        traffic: leg.traffic.iter().map(ToString::to_string).collect(),
        path: leg.path.iter().map(ToString::to_string).collect(),
    }
}
