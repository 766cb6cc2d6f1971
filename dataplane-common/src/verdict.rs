//! What became of a packet, and the numbered reason.

/// What a program decided. The entry point turns it into a return code by an exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a verdict that is not returned to the kernel loses the decision"]
pub enum Verdict {
    /// Hand the packet to the namespace behind the veth whose host end has this index.
    RedirectPeer(u32, Reason),
    /// Send the packet out of the interface with this index.
    RedirectEgress(u32, Reason),
    /// Drop the packet.
    Drop(Reason),
}

impl Verdict {
    /// The reason that is counted for this verdict.
    #[must_use]
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::RedirectPeer(_, reason) | Self::RedirectEgress(_, reason) | Self::Drop(reason) => reason,
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal, $advice:literal;)+) => {
        /// Why a packet was forwarded or dropped. The numbers are ABI: they index the per-CPU counters, appear in
        /// events, metrics and `tieline status`, and are never reused for another meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason { $($(#[doc = $doc])+ $name = $number),+ }

        impl Reason {
            /// Every reason, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name used in metrics, tables and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// What it means, in the words of `docs/reasons.md`.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }

            /// What an operator does about it.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice),+ }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The packet entered a wire and was handed to its other end.
    Forwarded = 0, "forwarded", "Nothing: this is the normal case.";
    /// The interface has Tieline's program but is not a position of any wire.
    Unwired = 1, "unwired", "Expected for a moment while a wire is made or removed. If it keeps growing, the agent is down in the middle of a change: start it and look at `tieline status`.";
    /// The position exists, but the node's generation has not reached the wire's first plan, or its hop was taken away.
    Inactive = 2, "inactive", "Expected for a moment while a plan is laid out. If it keeps growing, compare the planned and the applied generation in `tieline status`.";
    /// The frame is neither ARP, IPv4 nor IPv6, and the wire's payload is IP.
    NotIp = 3, "not_ip", "Use a NetworkService with payload ETHERNET if the workload needs this protocol.";
    /// The frame carries a VLAN tag, and the wire's payload is IP.
    VlanTagged = 4, "vlan_tagged", "Use a NetworkService with payload ETHERNET if the workload needs VLANs.";
    /// The wire is parked: no endpoint serves it now.
    Parked = 5, "parked", "Find out with `tieline get connections` why the wire has no endpoint; it forwards again, by the same interface, as soon as one serves it.";
    /// The packet was forwarded by a branch that its flow may leave again: the table of flows had no room for it.
    Unpinned = 6, "unpinned", "Nothing, as long as rules and weights stay as they are. If it keeps growing, fewer wires of this node should have branches.";
    /// The fragment was forwarded by the branch that its addresses give: the first fragment, which names the flow, was not seen before it.
    FragmentAlone = 7, "fragment_alone", "If it keeps growing, fragments arrive out of order: lower the MTU of the sender, or do not split this traffic by port.";
    /// The packet answered a probe of the agent, which has noted it; it was not for the workload.
    ProbeReply = 8, "probe_reply", "Nothing: this is how endpoints are found alive.";
}

impl Reason {
    /// How many reasons there are: the size of the counter map.
    pub const COUNT: u32 = {
        let mut highest = 0;
        let mut i = 0;
        while i < Self::ALL.len() {
            if Self::ALL[i].number() > highest {
                highest = Self::ALL[i].number();
            }
            i += 1;
        }
        highest + 1
    };

    /// Whether the packet got lost: neither handed on nor an answer to the agent.
    #[must_use]
    #[inline(always)]
    pub const fn is_loss(self) -> bool {
        match self {
            Self::Forwarded | Self::Unpinned | Self::FragmentAlone | Self::ProbeReply => false,
            Self::Unwired | Self::Inactive | Self::NotIp | Self::VlanTagged | Self::Parked => true,
        }
    }

    /// The number that stands for this reason in counters and events.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_labels_are_unique_and_lead_back() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason.number()), Some(reason));
            assert!(reason.number() < Reason::COUNT);
        }
    }

    #[test]
    fn a_number_without_a_reason_is_none() {
        assert_eq!(Reason::from_number(Reason::COUNT), None);
    }

    #[test]
    fn each_verdict_counts_its_own_reason() {
        assert_eq!(
            Verdict::RedirectPeer(1, Reason::Forwarded).reason(),
            Reason::Forwarded
        );
        assert_eq!(
            Verdict::RedirectEgress(1, Reason::Unpinned).reason(),
            Reason::Unpinned
        );
        assert_eq!(Verdict::Drop(Reason::NotIp).reason(), Reason::NotIp);
    }
}
