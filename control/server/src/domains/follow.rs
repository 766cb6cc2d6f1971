//! Following another domain: what is registered there is known here, and it hears what this domain has of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tieline_model::{
    Connection, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, ObjectKind, RegistryDomain,
};
use tieline_proto::dial;
use tieline_proto::tieline::domain::v1 as proto;
use tieline_proto::tieline::domain::v1::watch_response::Change;
use tieline_registry::{ChangeKind, Command, Offer, Registry, RegistryEvent};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::Domains;
use super::peer::{Held, Peer, Reach, Wish};
use crate::engine::{EngineHandle, Topic};
use crate::failure::Failure;

/// How many of its leases' parts pass between two signs of life.
const SIGNS_PER_LEASE: u32 = 3;
/// The shortest and the longest time between two signs of life.
const SIGNS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];
/// What changes within this time is told at once: a thousand connections that are closed are one message.
const SOON: Duration = Duration::from_millis(20);
/// How long the other control may take to say everything.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
const ENDED: &str = "its control ended the stream";

impl Domains {
    /// Forgets domains that are not configured any more, and follows the others.
    pub(crate) async fn follow(&self, engine: &EngineHandle) -> Result<JoinSet<()>, Failure> {
        let known = engine.look(|registry, _| registry.imported_domains()).await?;
        let followed = |domain: &RegistryDomain| {
            self.peers()
                .any(|peer| peer.domain() == domain && peer.address().is_some())
        };
        for domain in known.into_iter().filter(|domain| !followed(domain)) {
            tracing::info!(%domain, "registry domain is not configured any more; what was known of it is forgotten");
            import(engine, &domain, Vec::new(), true).await?;
        }
        let mut followers = JoinSet::new();
        for peer in self.peers().filter(|peer| peer.address().is_some()) {
            let follower = Follower {
                peer: Arc::clone(peer),
                engine: engine.clone(),
                missing: BTreeSet::new(),
            };
            followers.spawn(follower.run());
        }
        Ok(followers)
    }
}

async fn import(
    engine: &EngineHandle,
    domain: &RegistryDomain,
    offers: Vec<Offer>,
    whole: bool,
) -> Result<(), Failure> {
    let domain = domain.clone();
    let command = Command::Import {
        domain,
        offers,
        whole,
    };
    engine.execute(command).await.map(drop)
}

fn soon() -> Instant {
    Instant::now() + SOON
}

struct Follower {
    peer: Arc<Peer>,
    engine: EngineHandle,
    /// Services that are gone there and known here, for somebody is connected to them.
    missing: BTreeSet<String>,
}

impl Follower {
    async fn run(mut self) {
        let mut attempt = 0;
        loop {
            let ended = self.follow().await;
            if self.peer.reach() == Reach::Reached {
                attempt = 0;
            }
            let why = match ended {
                Ok(()) => ENDED.to_owned(),
                Err(Failure::Stopping) => return,
                Err(Failure::DomainAway { why, .. }) => why,
                Err(failure) => failure.to_string(),
            };
            self.peer.set_reach(Reach::Away(why));
            tokio::time::sleep(dial::back_off(attempt, fastrand::f64())).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Follows until the stream ends.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut stream = self.peer.watch().await?;
        let (_, mut ours) = self.engine.watch(Topic::Used(self.peer.domain().clone())).await?;
        let whole = tokio::time::timeout(WHOLE_WITHIN, whole(&self.peer, &mut stream)).await;
        let late = || {
            let seconds = WHOLE_WITHIN.as_secs();
            self.peer
                .away(format!("it did not say everything within {seconds} s"))
        };
        let offers = whole.map_err(|_| late())??;
        let offered: BTreeSet<String> = offers.iter().filter_map(service_name).collect();
        import(&self.engine, self.peer.domain(), offers, true).await?;
        self.missing = self
            .known_services()
            .await?
            .difference(&offered)
            .cloned()
            .collect();
        let mut due = Instant::now() + self.tell().await?;
        self.peer.set_reach(Reach::Reached);
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    None => return Ok(()),
                    Some(Err(status)) => return Err(self.peer.broken(&status)),
                    Some(Ok(message)) => self.take(message).await?,
                },
                event = ours.next() => match event {
                    None => return Err(Failure::Stopping),
                    Some(Err(end)) => return Err(Failure::Ended(end)),
                    Some(Ok(RegistryEvent::Endpoint(ChangeKind::Update, endpoint))) => {
                        self.register(&endpoint).await?;
                    }
                    // A connection that is there has been reserved.
                    Some(Ok(RegistryEvent::Connection(ChangeKind::Update, _))) => {}
                    Some(Ok(_)) => due = due.min(soon()),
                },
                () = self.peer.to_be_told() => due = due.min(soon()),
                () = tokio::time::sleep_until(due) => due = Instant::now() + self.tell().await?,
            }
        }
    }

    /// Registers an endpoint of a workload here again, for it has changed.
    async fn register(&self, endpoint: &NetworkServiceEndpoint) -> Result<(), Failure> {
        match self.peer.register(endpoint.clone()).await {
            Err(failure @ Failure::DomainAway { .. }) => Err(failure),
            Err(failure) => {
                let (name, domain) = (endpoint.name(), self.peer.domain());
                tracing::warn!(%name, %domain, %failure, "an endpoint is not registered in the other domain");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn take(&mut self, message: proto::WatchResponse) -> Result<(), Failure> {
        let Some(offer) = offer(message)? else {
            return Ok(());
        };
        if let Some(name) = service_name(&offer) {
            self.missing.remove(&name);
        }
        if let Offer::Gone(ObjectKind::NetworkService, name) = &offer {
            self.missing.insert(name.clone());
        }
        import(&self.engine, self.peer.domain(), vec![offer], false).await
    }

    async fn known_services(&self) -> Result<BTreeSet<String>, Failure> {
        let domain = self.peer.domain().clone();
        let look = move |registry: &Registry, _| {
            registry
                .services_of(&domain)
                .map(|name| name.local().to_string())
                .collect()
        };
        self.engine.look(look).await
    }

    /// Tells the other domain what this one has of it. How long to wait until it is told again.
    async fn tell(&mut self) -> Result<Duration, Failure> {
        if !self.missing.is_empty() {
            let gone = |name: &String| Offer::Gone(ObjectKind::NetworkService, name.clone());
            let offers = self.missing.iter().map(gone).collect();
            import(&self.engine, self.peer.domain(), offers, false).await?;
            let known = self.known_services().await?;
            self.missing.retain(|name| known.contains(name));
        }
        let domain = self.peer.domain().clone();
        let lease = self
            .peer
            .hold(self.engine.look(move |registry, _| held(registry, &domain)))
            .await?;
        let [shortest, longest] = SIGNS;
        Ok((lease / SIGNS_PER_LEASE).clamp(shortest, longest))
    }
}

fn held(registry: &Registry, domain: &RegistryDomain) -> Held {
    let ids = registry.connected_to(domain);
    let connections = ids.filter_map(|id| registry.connection(id));
    let wish = |connection: &Arc<Connection>| Wish {
        id: connection.id.clone(),
        service: connection.service.local(),
        asked: [
            connection.client.addresses.clone(),
            connection.server_addresses.clone(),
        ],
        excluded: Vec::new(),
    };
    Held {
        connections: connections.map(wish).collect(),
        endpoints: registry.registered_in(domain).cloned().collect(),
    }
}

/// Everything that there is.
async fn whole(
    peer: &Peer,
    stream: &mut tonic::Streaming<proto::WatchResponse>,
) -> Result<Vec<Offer>, Failure> {
    let mut offers = Vec::new();
    while let Some(message) = stream.next().await {
        let message = message.map_err(|status| peer.broken(&status))?;
        if matches!(message.change, Some(Change::Complete(_))) {
            return Ok(offers);
        }
        offers.extend(offer(message)?);
    }
    Err(peer.away(ENDED.to_owned()))
}

fn service_name(offer: &Offer) -> Option<String> {
    match offer {
        Offer::Service(service) => Some(service.name().to_string()),
        _ => None,
    }
}

/// `None`: a message of a later release.
fn offer(message: proto::WatchResponse) -> Result<Option<Offer>, Failure> {
    Ok(match message.change {
        Some(Change::Service(service)) => Some(Offer::Service(NetworkService::try_from(service)?)),
        Some(Change::Wiring(wiring)) => Some(Offer::Wiring(NetworkServiceWiring::try_from(wiring)?)),
        Some(Change::Endpoint(endpoint)) => {
            Some(Offer::Endpoint(NetworkServiceEndpoint::try_from(endpoint)?))
        }
        Some(Change::Gone(gone)) => Some(Offer::Gone(
            ObjectKind::parse("gone.kind", &gone.kind)?,
            gone.name,
        )),
        Some(Change::Complete(_)) | None => None,
    })
}
