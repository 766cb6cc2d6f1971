//! NetworkServiceEndpoint, who registers it, and the objects that operators declare.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Attachment, EndpointName, Invalid, Labels, NetnsRef, NetworkService, NodeName, ServiceName, Timestamp,
    limits::{MAX_CGROUP_LEN, MAX_ENDPOINT_SERVICES},
    text::word_form,
};

/// Who calls, as the kernel told the node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The agent's node.
    pub node: NodeName,
    /// User id in the agent's user namespace.
    pub uid: u32,
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    /// The namespace that the call is about.
    pub netns: NetnsRef,
    /// Path of the caller's cgroup below the cgroup2 mount; empty if unknown.
    pub cgroup: String,
    /// Whether the caller may act for other workloads.
    pub operator: bool,
    /// What the agent can prove of the workload that the call is about: attested, never its own word.
    pub labels: Labels,
}

impl Workload {
    /// Checks the cgroup path's length.
    pub fn checked(self) -> Result<Self, Invalid> {
        if self.cgroup.len() > MAX_CGROUP_LEN {
            let rule = format!("a cgroup path has at most {MAX_CGROUP_LEN} bytes");
            return Err(Invalid::new("workload.cgroup", &self.cgroup, rule));
        }
        Ok(self)
    }

    /// What of the caller is written down as the owner of what it makes.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::Workload {
            node: self.node.clone(),
            netns: self.netns.clone(),
            uid: self.uid,
        }
    }
}

/// Whose an endpoint or connection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// Declared by an operator.
    Operator,
    /// Made by, or for, a workload.
    Workload {
        /// Its node.
        node: NodeName,
        /// Its network namespace.
        netns: NetnsRef,
        /// Its user.
        uid: u32,
    },
}

impl Owner {
    /// Whether `caller` may change or remove what this owner has: an operator always; a workload what was made in its
    /// own namespace by its own user, or anything there if it runs as root.
    #[must_use]
    pub fn admits(&self, caller: &Workload) -> bool {
        match self {
            _ if caller.operator => true,
            Self::Operator => false,
            Self::Workload { node, netns, uid } => {
                *node == caller.node
                    && netns.is_same(&caller.netns)
                    && (*uid == caller.uid || caller.uid == 0)
            }
        }
    }
}

/// An endpoint as its workload registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRegistration {
    name: EndpointName,
    services: BTreeMap<ServiceName, Labels>,
    /// Set when the endpoint is an existing interface of the node and not the workload's namespace.
    pub attachment: Option<Attachment>,
    /// When it asks to be forgotten; `None`: the default.
    pub expires: Option<Timestamp>,
}

impl EndpointRegistration {
    /// Checks the number of services.
    pub fn new(name: EndpointName, services: BTreeMap<ServiceName, Labels>) -> Result<Self, Invalid> {
        check_services(&services)?;
        Ok(Self {
            name,
            services,
            attachment: None,
            expires: None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// What it offers, with the labels for each.
    #[must_use]
    pub fn services(&self) -> &BTreeMap<ServiceName, Labels> {
        &self.services
    }
}

fn check_services(services: &BTreeMap<ServiceName, Labels>) -> Result<(), Invalid> {
    if services.is_empty() {
        return Err(Invalid::new(
            "network_service_names",
            "",
            "an endpoint offers at least one service",
        ));
    }
    crate::service::check_count("network_service_names", services.len(), MAX_ENDPOINT_SERVICES)
}

/// What clients are connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkServiceEndpoint {
    name: EndpointName,
    services: BTreeMap<ServiceName, Labels>,
    node: NodeName,
    attachment: Attachment,
    expires: Option<Timestamp>,
    registered_at: Timestamp,
    owner: Owner,
}

impl NetworkServiceEndpoint {
    /// Declared by an operator: without lease. `registered_at` is set when the registry takes it.
    pub fn declared(
        name: EndpointName,
        services: BTreeMap<ServiceName, Labels>,
        node: NodeName,
        attachment: Attachment,
    ) -> Result<Self, Invalid> {
        check_services(&services)?;
        let (owner, registered_at) = (Owner::Operator, Timestamp::default());
        Ok(Self {
            name,
            services,
            node,
            attachment,
            expires: None,
            registered_at,
            owner,
        })
    }

    /// Registered by `caller` from `since` to `expires`, where the registration says or else in the caller's namespace.
    #[must_use]
    pub fn registered(
        registration: EndpointRegistration,
        caller: &Workload,
        since: Timestamp,
        expires: Timestamp,
    ) -> Self {
        let EndpointRegistration {
            name,
            services,
            attachment,
            ..
        } = registration;
        Self {
            name,
            services,
            node: caller.node.clone(),
            attachment: attachment.unwrap_or_else(|| Attachment::Netns(caller.netns.clone())),
            expires: Some(expires),
            registered_at: since,
            owner: caller.owner(),
        }
    }

    /// The same, first registered at `at`.
    #[must_use]
    pub fn since(mut self, at: Timestamp) -> Self {
        self.registered_at = at;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// What it offers, with the labels for each.
    #[must_use]
    pub fn services(&self) -> &BTreeMap<ServiceName, Labels> {
        &self.services
    }

    /// The node that it is on.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Where on the node.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// When it is forgotten; `None`: never.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// When it was first registered.
    #[must_use]
    pub fn registered_at(&self) -> Timestamp {
        self.registered_at
    }

    /// Whether an operator declared it, so that it has no lease.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        self.owner == Owner::Operator
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// An object that operators declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A service.
    NetworkService(NetworkService),
    /// An endpoint without lease.
    NetworkServiceEndpoint(NetworkServiceEndpoint),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::NetworkService(_) => ObjectKind::NetworkService,
            Self::NetworkServiceEndpoint(_) => ObjectKind::NetworkServiceEndpoint,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::NetworkService(service) => service.name().as_str(),
            Self::NetworkServiceEndpoint(endpoint) => endpoint.name().as_str(),
        }
    }
}

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// [`NetworkService`].
    NetworkService,
    /// [`NetworkServiceEndpoint`].
    NetworkServiceEndpoint,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::NetworkService, Self::NetworkServiceEndpoint];

    /// The word in files and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkService => "NetworkService",
            Self::NetworkServiceEndpoint => "NetworkServiceEndpoint",
        }
    }
}

word_form!(ObjectKind, "kind", "a kind");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetnsId;

    fn workload(inode: u64, uid: u32, operator: bool) -> Workload {
        let netns = NetnsRef::parse("n", "/proc/7/ns/net", Some(NetnsId { device: 4, inode })).unwrap();
        Workload {
            node: "n1".parse().unwrap(),
            uid,
            pid: 7,
            netns,
            cgroup: String::new(),
            operator,
            labels: Labels::default(),
        }
    }

    #[test]
    fn only_operators_and_the_workload_itself_may_touch_what_it_made() {
        let owner = workload(1, 1000, false).owner();
        assert!(owner.admits(&workload(1, 1000, false)));
        assert!(owner.admits(&workload(1, 0, false)));
        assert!(owner.admits(&workload(9, 0, true)));
        assert!(!owner.admits(&workload(1, 1001, false)));
        assert!(!owner.admits(&workload(2, 1000, false)));
        assert!(!Owner::Operator.admits(&workload(1, 0, false)));
    }
}
