//! NSM's MonitorConnections, passed on from control.

use tieline_proto::connection::{
    ConnectionEvent, MonitorScopeSelector, monitor_connection_client::MonitorConnectionClient,
    monitor_connection_server::MonitorConnection,
};
use tonic::{Request, Response, Status};

use super::{Api, EventStream, MAX_ANSWER_BYTES};

#[tonic::async_trait]
impl MonitorConnection for Api {
    type MonitorConnectionsStream = EventStream<ConnectionEvent>;

    async fn monitor_connections(
        &self,
        request: Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        self.answer("MonitorConnection/MonitorConnections", async {
            let mut client = MonitorConnectionClient::new(self.channel.clone())
                .max_decoding_message_size(MAX_ANSWER_BYTES);
            let stream = self
                .follow(request.into_inner(), |message| {
                    client.monitor_connections(message)
                })
                .await?;
            Ok(self.relay(stream))
        })
        .await
    }
}
