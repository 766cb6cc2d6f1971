//! What operators ask this node.

use dataplane_common::{ABI_VERSION, Reason};
use tieline_proto::tieline::admin::v1::{
    EndStatus, GetNodeRequest, GetNodeResponse, HopStatus, LabelSource, ListWiresRequest, ListWiresResponse,
    ReasonCount, WireBranchStatus, WireStatus, node_service_server::NodeService,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    agent::{
        attested::SourceReport,
        error::CallError,
        status::{self, SessionState},
        worker::{Job, View},
    },
    datapath::ObserveError,
    desired::{IfName, WireId},
    reconcile::{BranchView, EndView, HopView, WireView},
};

#[tonic::async_trait]
impl NodeService for Api {
    async fn get_node(&self, _: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        self.answer("NodeService/GetNode", async {
            let reasons = self.look(|view: &dyn View| view.reasons()).await?;
            Ok(GetNodeResponse {
                label_sources: self.attestor.sources().into_iter().map(label_source).collect(),
                ..describe(&self.status, reasons)
            })
        })
        .await
    }

    async fn list_wires(
        &self,
        request: Request<ListWiresRequest>,
    ) -> Result<Response<ListWiresResponse>, Status> {
        self.answer("NodeService/ListWires", async {
            let ids: Vec<WireId> = request
                .into_inner()
                .connection_ids
                .into_iter()
                .map(WireId)
                .collect();
            let look = move |view: &dyn View| view.wires((!ids.is_empty()).then_some(&ids));
            let wires = self.look(look).await?;
            Ok(ListWiresResponse {
                wires: wires.into_iter().map(wire_status).collect(),
            })
        })
        .await
    }
}

impl Api {
    /// Asks the worker, which answers after its current pass.
    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn View) -> Result<T, ObserveError> + Send + 'static,
    ) -> Result<T, CallError> {
        let (sender, receiver) = oneshot::channel();
        let look = move |view: &dyn View| {
            // The caller may have given up.
            let _ = sender.send(read(view));
        };
        let jobs = self.jobs.upgrade().ok_or(CallError::ShuttingDown)?;
        jobs.send(Job::Look(Box::new(look)))
            .await
            .map_err(|_| CallError::ShuttingDown)?;
        let read = receiver.await.map_err(|_| CallError::ShuttingDown)?;
        read.map_err(|error| CallError::Kernel(error.to_string()))
    }
}

fn describe(status: &status::Status, reasons: Vec<(Reason, u64)>) -> GetNodeResponse {
    let control_error = match status.session() {
        SessionState::Up => String::new(),
        SessionState::Away { reason } => reason,
    };
    let counts = reasons.into_iter().map(|(reason, packets)| ReasonCount {
        number: reason.number(),
        name: reason.as_str().to_owned(),
        packets,
    });
    let answer = GetNodeResponse {
        node: status.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        abi_version: ABI_VERSION,
        control_connected: status.session() == SessionState::Up,
        control_error,
        planned_generation: status.planned(),
        applied_generation: status.applied(),
        wires: u32::try_from(status.wire_counts().planned()).unwrap_or(u32::MAX),
        reasons: counts.collect(),
        ..GetNodeResponse::default()
    };
    let Some(datapath) = status.datapath().cloned() else {
        return answer;
    };
    GetNodeResponse {
        attach_backend: datapath.attach_backend.to_owned(),
        kernel_release: datapath.kernel_release,
        max_wires: datapath.max_wires,
        pin_path: datapath.pin_path,
        ..answer
    }
}

fn label_source(source: SourceReport) -> LabelSource {
    LabelSource {
        path: source.path,
        entries: u32::try_from(source.entries).unwrap_or(u32::MAX),
        error: source.error,
    }
}

fn wire_status(wire: WireView) -> WireStatus {
    let parked = wire.branches.is_empty();
    let error = match wire.failure {
        Some(failure) => failure.message,
        None if parked => "parked: no endpoint serves it now; its packets are dropped".to_owned(),
        None => String::new(),
    };
    WireStatus {
        connection_id: wire.id.0,
        network_service: wire.network_service,
        forwarding: wire.forwarding,
        error,
        mtu: wire.mtu,
        client: Some(end_status(wire.client)),
        branches: wire.branches.into_iter().map(branch_status).collect(),
    }
}

fn branch_status(branch: BranchView) -> WireBranchStatus {
    let hop = |hop: HopView| HopStatus {
        endpoint_name: hop.endpoint_name,
        inside: Some(end_status(hop.inside)),
        outside: Some(end_status(hop.outside)),
    };
    WireBranchStatus {
        hops: branch.hops.into_iter().map(hop).collect(),
        endpoint_name: branch.endpoint_name,
        endpoint: Some(end_status(branch.endpoint)),
        taken_packets: branch.taken.packets,
        taken_bytes: branch.taken.bytes,
    }
}

fn end_status(end: EndView) -> EndStatus {
    EndStatus {
        host_interface: end.host_interface.to_string(),
        ifindex: end.ifindex.unwrap_or(0),
        workload_interface: end
            .workload_interface
            .as_ref()
            .map(IfName::to_string)
            .unwrap_or_default(),
        netns: end
            .netns
            .map(|netns| netns.path.display().to_string())
            .unwrap_or_default(),
        packets: end.counters.packets,
        bytes: end.counters.bytes,
    }
}
