//! NetworkServiceEndpoint, and who registers it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Attachment, EndpointName, Invalid, Labels, MachineId, NetnsRef, NodeName, Plumbing, RegistryDomain,
    ServiceName, Timestamp,
    limits::{MAX_CGROUP_LEN, MAX_ENDPOINT_SERVICES},
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
    /// Another registry domain, where it is registered or which registered it here.
    Domain(RegistryDomain),
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
            Self::Domain(_) => false,
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

/// The label of NSM's endpoint message that says how the endpoint is plumbed. It is not a label of ours.
pub const PLUMBING_LABEL: &str = "tieline.io/plumbing";

/// An endpoint as its workload registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRegistration {
    name: EndpointName,
    services: BTreeMap<ServiceName, Labels>,
    /// Set when the endpoint is an existing interface of the node and not the workload's namespace.
    pub attachment: Option<Attachment>,
    /// How it stands in a path; `None`: that follows from the rules that lead to it.
    pub plumbing: Option<Plumbing>,
    /// When it asks to be forgotten; `None`: the default.
    pub expires: Option<Timestamp>,
    /// Whether its node shall keep it for as long as it is there.
    pub kept_by_node: bool,
}

impl EndpointRegistration {
    /// Checks the number of services.
    pub fn new(name: EndpointName, services: BTreeMap<ServiceName, Labels>) -> Result<Self, Invalid> {
        check_services(&services)?;
        Ok(Self {
            name,
            services,
            attachment: None,
            plumbing: None,
            expires: None,
            kept_by_node: false,
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

    /// The same under other names.
    pub(crate) fn renamed(
        self,
        name: impl FnOnce(EndpointName) -> EndpointName,
        service: impl Fn(ServiceName) -> ServiceName,
    ) -> Self {
        let services = self.services.into_iter();
        Self {
            name: name(self.name),
            services: services.map(|(name, labels)| (service(name), labels)).collect(),
            ..self
        }
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
    if let Some((service, _)) = services
        .iter()
        .find(|(_, labels)| labels.get(PLUMBING_LABEL).is_some())
    {
        let field = format!("network_service_labels[{service}].labels[{PLUMBING_LABEL}]");
        return Err(Invalid::new(
            field,
            "",
            "say plumbing instead: this label is how NSM's API spells it",
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plumbing: Option<Plumbing>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    attested: Labels,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<MachineId>,
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
            plumbing: None,
            attested: Labels::default(),
            draining: false,
            machine: None,
        })
    }

    /// Registered by `caller` from `since` to `expires` (`None`: as long as its node keeps it), where the registration says
    /// or else in the caller's namespace.
    #[must_use]
    pub fn registered(
        registration: EndpointRegistration,
        caller: &Workload,
        since: Timestamp,
        expires: Option<Timestamp>,
    ) -> Self {
        let EndpointRegistration {
            name,
            services,
            attachment,
            plumbing,
            ..
        } = registration;
        Self {
            name,
            services,
            node: caller.node.clone(),
            attachment: attachment.unwrap_or_else(|| Attachment::Netns(caller.netns.clone())),
            expires,
            registered_at: since,
            owner: caller.owner(),
            plumbing,
            attested: caller.labels.clone(),
            draining: false,
            machine: None,
        }
    }

    /// The same, plumbed so; `None`: that follows from the rules that lead to it. An existing interface has one side
    /// only, so that a path always ends there.
    pub fn with_plumbing(mut self, plumbing: Option<Plumbing>) -> Result<Self, Invalid> {
        let passing = plumbing.filter(|plumbing| plumbing.is_passthrough());
        if let (Some(plumbing), Attachment::Interface(_)) = (passing, &self.attachment) {
            let rule = "an existing interface is where a wire ends: leave plumbing out, or say endpoint";
            return Err(Invalid::new("plumbing", plumbing.as_str(), rule));
        }
        self.plumbing = plumbing;
        Ok(self)
    }

    /// The same, with these labels as what is proven of it: for a declared endpoint the operator's own word.
    #[must_use]
    pub fn with_attested(mut self, attested: Labels) -> Self {
        self.attested = attested;
        self
    }

    /// The same, drained or not.
    #[must_use]
    pub fn with_draining(mut self, draining: bool) -> Self {
        self.draining = draining;
        self
    }

    /// The same, on this machine; `None`: nobody knows.
    #[must_use]
    pub fn with_machine(mut self, machine: Option<MachineId>) -> Self {
        self.machine = machine;
        self
    }

    /// The same, there on its node.
    #[must_use]
    pub fn with_attachment(mut self, attachment: Attachment) -> Self {
        self.attachment = attachment;
        self
    }

    /// The same as the domain that it is registered in knows it.
    #[must_use]
    pub fn in_its_domain(self) -> Self {
        let services = self.services.into_iter();
        Self {
            name: self.name.local(),
            services: services.map(|(name, labels)| (name.local(), labels)).collect(),
            ..self
        }
    }

    /// The same, on this node.
    #[must_use]
    pub fn with_node(mut self, node: NodeName) -> Self {
        self.node = node;
        self
    }

    /// The same as it is known outside of `domain`, where it is registered.
    #[must_use]
    pub fn in_domain(self, domain: &RegistryDomain) -> Self {
        let services = self.services.into_iter();
        Self {
            name: self.name.in_domain(domain),
            services: services
                .map(|(name, labels)| (name.in_domain(domain), labels))
                .collect(),
            expires: None,
            owner: Owner::Domain(domain.clone()),
            ..self
        }
    }

    /// The same, registered here by `domain`, which keeps its lease and has the node.
    #[must_use]
    pub fn kept_by_domain(self, domain: &RegistryDomain) -> Self {
        Self {
            node: self.node.in_domain(domain),
            expires: None,
            owner: Owner::Domain(domain.clone()),
            ..self
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

    /// When it is forgotten; `None`: never, or when its node says so.
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

    /// Whether its node keeps it for as long as it is there.
    #[must_use]
    pub fn is_kept_by_node(&self) -> bool {
        self.expires.is_none() && matches!(self.owner, Owner::Workload { .. })
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// How it stands in a path; `None`: that follows from the rules that lead to it.
    #[must_use]
    pub fn plumbing(&self) -> Option<Plumbing> {
        self.plumbing
    }

    /// What is proven of its workload.
    #[must_use]
    pub fn attested(&self) -> &Labels {
        &self.attested
    }

    /// The machine that it is on, if that is known.
    #[must_use]
    pub fn machine(&self) -> Option<&MachineId> {
        self.machine.as_ref()
    }

    /// Whether another domain keeps its lease.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self.owner, Owner::Domain(_))
    }

    /// Whether an operator drains it: it gets nothing new, and what it has is moved.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether `other` is the same but for when its lease ends.
    #[must_use]
    pub fn differs_in_lease_only(&self, other: &Self) -> bool {
        let without = |one: &Self| Self {
            expires: None,
            ..one.clone()
        };
        without(self) == without(other)
    }

    /// Whether it is where `other` is: on its node, in its namespace or at its interface.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        (&self.node, &self.attachment) == (&other.node, &other.attachment)
    }

    /// What it is chosen by for `service`: what is proven of it, and for keys of which nothing is proven the labels
    /// that it registered.
    #[must_use]
    pub fn labels_for(&self, service: &ServiceName) -> Labels {
        match self.services.get(service) {
            Some(registered) => self.attested.or(registered),
            None => self.attested.clone(),
        }
    }
}

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
