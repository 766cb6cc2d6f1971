//! Which packets of a wire a rule is about.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    net::parse_prefix,
    text::{text_form, word_form},
};

/// A transport protocol that traffic can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP for IPv4, ICMPv6 for IPv6.
    Icmp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp];

    /// The word in files and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        }
    }

    /// The number in the IPv4 header (IANA, Assigned Internet Protocol Numbers). In IPv6 it is the same but for
    /// ICMPv6, which is 58.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Icmp => 1,
        }
    }

    /// Whether its packets carry ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        self != Self::Icmp
    }
}

word_form!(Protocol, "protocol", "a protocol");

/// A port, or a range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Checks the order; an error names `field`.
    pub fn new(field: &str, first: u16, last: u16) -> Result<Self, Invalid> {
        if first == 0 || first > last {
            let rule = "ports are PORT or FIRST-LAST: 1 to 65535, the smaller one first";
            return Err(Invalid::new(field, format!("{first}-{last}"), rule));
        }
        Ok(Self { first, last })
    }

    /// Reads `80` or `8000-8999`; an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| plain)
        };
        match (port(first), port(last)) {
            (Some(first), Some(last)) => Self::new(field, first, last),
            _ => Err(Invalid::new(
                field,
                text,
                "ports are PORT or FIRST-LAST: 1 to 65535",
            )),
        }
    }

    /// The first one.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last one.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    fn and(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }
}

text_form!(Ports, "ports");

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

/// Packets of a wire, named by what they carry about the far side, the endpoint's: their protocol, its ports, its
/// address. What is not given is any; something is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "TrafficText", into = "TrafficText")]
pub struct TrafficSelector {
    protocol: Option<Protocol>,
    ports: Option<Ports>,
    prefix: Option<IpNet>,
}

impl TrafficSelector {
    /// Checks that something is given, and ports only for a protocol that has them; an error names `field`'s part.
    pub fn new(
        field: &str,
        protocol: Option<Protocol>,
        ports: Option<Ports>,
        prefix: Option<IpNet>,
    ) -> Result<Self, Invalid> {
        if let Some(ports) = ports.filter(|_| !protocol.is_some_and(Protocol::has_ports)) {
            let rule = "ports need a protocol that has ports: write protocol: tcp, udp or sctp";
            return Err(Invalid::new(format!("{field}.ports"), ports.to_string(), rule));
        }
        if protocol.is_none() && prefix.is_none() {
            let rule = "give a protocol, ports or a prefix; to mean all traffic, leave the whole list out";
            return Err(Invalid::new(field, "", rule));
        }
        Ok(Self {
            protocol,
            ports,
            prefix,
        })
    }

    /// Reads the parts as texts, an empty one being not given: `tcp`, `80-89`, `10.0.0.0/8`. An error names `field`'s
    /// part.
    pub fn parse(field: &str, protocol: &str, ports: &str, prefix: &str) -> Result<Self, Invalid> {
        let given = |text: &'_ str| !text.is_empty();
        let protocol = given(protocol).then(|| Protocol::parse(&format!("{field}.protocol"), protocol));
        let ports = given(ports).then(|| Ports::parse(&format!("{field}.ports"), ports));
        let prefix = given(prefix).then(|| parse_prefix(&format!("{field}.prefix"), prefix));
        Self::new(
            field,
            protocol.transpose()?,
            ports.transpose()?,
            prefix.transpose()?,
        )
    }

    /// The protocol; `None`: any.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The far side's ports; `None`: any.
    #[must_use]
    pub fn ports(&self) -> Option<Ports> {
        self.ports
    }

    /// The far side's address; `None`: any of either family.
    #[must_use]
    pub fn prefix(&self) -> Option<IpNet> {
        self.prefix
    }

    /// Protocol, ports and prefix as texts that [`Self::parse`] reads.
    #[must_use]
    pub fn texts(&self) -> [String; 3] {
        fn text_of<T: ToString>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        [text_of(self.protocol), text_of(self.ports), text_of(self.prefix)]
    }

    /// Whether every packet that `other` selects is selected here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        fn within<T>(own: Option<T>, other: Option<T>, covers: impl Fn(T, T) -> bool) -> bool {
            match (own, other) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(other)) => covers(own, other),
            }
        }
        within(self.protocol, other.protocol, |a, b| a == b)
            && within(self.ports, other.ports, Ports::covers)
            && within(self.prefix, other.prefix, |a, b| a.contains(&b))
    }

    /// The packets that both select; `None`: there are none.
    #[must_use]
    pub fn and(&self, other: &Self) -> Option<Self> {
        fn both<T>(one: Option<T>, other: Option<T>, and: impl Fn(T, T) -> Option<T>) -> Option<Option<T>> {
            match (one, other) {
                (Some(one), Some(other)) => and(one, other).map(Some),
                (one, other) => Some(one.or(other)),
            }
        }
        let narrower = |a: IpNet, b: IpNet| {
            let narrow = if a.prefix_len() >= b.prefix_len() { a } else { b };
            (a.contains(&b) || b.contains(&a)).then_some(narrow)
        };
        Some(Self {
            protocol: both(self.protocol, other.protocol, |a, b| (a == b).then_some(a))?,
            ports: both(self.ports, other.ports, Ports::and)?,
            prefix: both(self.prefix, other.prefix, narrower)?,
        })
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.map_or("any", Protocol::as_str))?;
        if let Some(ports) = self.ports {
            write!(f, "/{ports}")?;
        }
        match self.prefix {
            Some(prefix) => write!(f, " to {prefix}"),
            None => Ok(()),
        }
    }
}

/// The form in records.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficText {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    protocol: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ports: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prefix: String,
}

impl From<TrafficSelector> for TrafficText {
    fn from(selector: TrafficSelector) -> Self {
        let [protocol, ports, prefix] = selector.texts();
        Self {
            protocol,
            ports,
            prefix,
        }
    }
}

impl TryFrom<TrafficText> for TrafficSelector {
    type Error = Invalid;

    fn try_from(text: TrafficText) -> Result<Self, Invalid> {
        Self::parse("traffic", &text.protocol, &text.ports, &text.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(protocol: &str, ports: &str, prefix: &str) -> TrafficSelector {
        TrafficSelector::parse("t", protocol, ports, prefix).unwrap()
    }

    #[test]
    fn traffic_that_cannot_be_meant_is_refused_with_the_part_that_is_wrong() {
        for (protocol, ports, prefix, field) in [
            ("", "", "", "t"),
            ("", "80", "", "t.ports"),
            ("icmp", "80", "", "t.ports"),
            ("tcp", "0", "", "t.ports"),
            ("tcp", "90-80", "", "t.ports"),
            ("tcp", "80-", "", "t.ports"),
            ("tcp", "+80", "", "t.ports"),
            ("tcp", "65536", "", "t.ports"),
            ("TCP", "", "", "t.protocol"),
            ("", "", "10.0.0.1/8", "t.prefix"),
        ] {
            let error = TrafficSelector::parse("t", protocol, ports, prefix).unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
    }

    #[test]
    fn a_selector_reads_as_people_say_it() {
        assert_eq!(traffic("tcp", "80", "").to_string(), "tcp/80");
        assert_eq!(
            traffic("udp", "53-54", "10.0.0.0/8").to_string(),
            "udp/53-54 to 10.0.0.0/8"
        );
        assert_eq!(traffic("", "", "fd00::/64").to_string(), "any to fd00::/64");
    }

    #[test]
    fn a_selector_is_the_same_after_it_was_written_down() {
        for one in [
            traffic("tcp", "80-89", "10.0.0.0/8"),
            traffic("icmp", "", ""),
            traffic("", "", "::/0"),
        ] {
            let text = serde_json::to_string(&one).unwrap();
            assert_eq!(
                serde_json::from_str::<TrafficSelector>(&text).unwrap(),
                one,
                "{text}"
            );
        }
    }

    #[test]
    fn wider_traffic_covers_narrower_and_what_both_select_is_the_narrower_of_each_part() {
        let web = traffic("tcp", "80-89", "10.0.0.0/8");
        assert!(traffic("tcp", "", "").covers(&web));
        assert!(traffic("tcp", "1-1000", "10.0.0.0/8").covers(&web));
        assert!(!web.covers(&traffic("tcp", "80", "")));
        assert_eq!(traffic("udp", "", "").and(&web), None);
        let later = traffic("tcp", "85-95", "10.1.0.0/16");
        assert_eq!(web.and(&later), Some(traffic("tcp", "85-89", "10.1.0.0/16")));
        assert_eq!(later.and(&web), web.and(&later));
        assert_eq!(web.and(&traffic("tcp", "90", "")), None);
        assert_eq!(web.and(&traffic("", "", "fd00::/8")), None, "families never meet");
        assert_eq!(
            traffic("icmp", "", "").and(&traffic("", "", "::/0")),
            Some(traffic("icmp", "", "::/0"))
        );
    }
}
