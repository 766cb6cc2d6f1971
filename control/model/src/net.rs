//! Interfaces, network namespaces, hardware addresses, routes.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    limits::{MAX_IFNAME_LEN, MAX_MTU, MAX_NETNS_PATH_LEN, MIN_MTU},
    text::text_form,
};

/// Name of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// Checks `value` by the kernel's rules; an error names `field`.
    pub fn parse(field: &str, value: &str) -> Result<Self, Invalid> {
        if value.is_empty() || value.len() > MAX_IFNAME_LEN {
            let rule = format!(
                "an interface name has 1 to {MAX_IFNAME_LEN} bytes, this one {}",
                value.len()
            );
            return Err(Invalid::new(field, value, rule));
        }
        let good = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%';
        if value == "." || value == ".." || !value.bytes().all(good) {
            let rule = "an interface name is printable ASCII without spaces, \"/\", \":\" and \"%\"";
            return Err(Invalid::new(field, value, rule));
        }
        Ok(Self(value.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(IfName, "interface");

/// Identity of a network namespace: device and inode number of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device number of the file system that the namespace file is on.
    pub device: u64,
    /// Inode number of the namespace file.
    pub inode: u64,
}

/// A network namespace of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetnsRef {
    path: String,
    id: Option<NetnsId>,
}

impl NetnsRef {
    /// Checks `path`, which opens it: `/run/netns/NAME` or `/proc/PID/ns/net`. `id` is `None` when only the path was
    /// declared and no agent has looked at it.
    pub fn parse(field: &str, path: &str, id: Option<NetnsId>) -> Result<Self, Invalid> {
        let parts_are_plain = || !path.split('/').any(|part| part == ".." || part == ".");
        let named = path
            .strip_prefix("/run/netns/")
            .or_else(|| path.strip_prefix("/var/run/netns/"));
        let is_name = |name: &str| !name.is_empty() && !name.contains('/');
        let is_proc = || {
            let pid = path
                .strip_prefix("/proc/")
                .and_then(|rest| rest.strip_suffix("/ns/net"));
            pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
        };
        let printable = !path.chars().any(char::is_control);
        let good = path.len() <= MAX_NETNS_PATH_LEN && printable && parts_are_plain();
        if !good || !(named.is_some_and(is_name) || is_proc()) {
            let rule = "a network namespace is named by /run/netns/NAME or /proc/PID/ns/net";
            return Err(Invalid::new(field, path, rule));
        }
        Ok(Self {
            path: path.to_owned(),
            id,
        })
    }

    /// How to open it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its identity, if an agent has told it.
    #[must_use]
    pub fn id(&self) -> Option<NetnsId> {
        self.id
    }

    /// Whether both are the same namespace of the same node: by identity, or by path where one has none.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.id, other.id) {
            (Some(a), Some(b)) => a == b,
            _ => self.path == other.path,
        }
    }
}

impl fmt::Display for NetnsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// What an end of a wire is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attachment {
    /// An interface that the agent makes in this namespace.
    Netns(NetnsRef),
    /// An interface of the node that exists and is left as it is: the tap of a VM, a NIC. It ends one wire.
    Interface(IfName),
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(netns) => write!(f, "netns {netns}"),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Reads `xx:xx:xx:xx:xx:xx`; an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(field, text, "a hardware address is six octets: xx:xx:xx:xx:xx:xx");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(Self(octets))
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

text_form!(MacAddr, "mac");

/// The MTU of a wire in octets: 1280 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// Checks the range; an error names `field`.
    pub fn parse(field: &str, octets: u32) -> Result<Self, Invalid> {
        if (MIN_MTU..=MAX_MTU).contains(&octets) {
            return Ok(Self(octets));
        }
        let rule = format!("an MTU lies between {MIN_MTU} (IPv6 needs it) and {MAX_MTU} octets");
        Err(Invalid::new(field, octets.to_string(), rule))
    }

    /// As [`Self::parse`], with 0 for "not given", as in the API.
    pub fn parse_optional(field: &str, octets: u32) -> Result<Option<Self>, Invalid> {
        if octets == 0 {
            Ok(None)
        } else {
            Self::parse(field, octets).map(Some)
        }
    }

    /// Octets.
    #[must_use]
    pub fn octets(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = Invalid;

    fn try_from(octets: u32) -> Result<Self, Invalid> {
        Self::parse("mtu", octets)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

/// A route of one end of a wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub prefix: IpNet,
    /// Through whom; `None`: on link.
    pub next_hop: Option<IpAddr>,
}

impl Route {
    /// Reads the API's form, an empty `next_hop` being on link; an error names `field`.
    pub fn parse(field: &str, prefix: &str, next_hop: &str) -> Result<Self, Invalid> {
        let prefix = parse_prefix(&format!("{field}.prefix"), prefix)?;
        if next_hop.is_empty() {
            return Ok(Self {
                prefix,
                next_hop: None,
            });
        }
        let field = format!("{field}.next_hop");
        let hop: IpAddr = next_hop
            .parse()
            .map_err(|_| Invalid::new(&*field, next_hop, "an IPv4 or IPv6 address"))?;
        if hop.is_ipv4() != prefix.addr().is_ipv4() {
            return Err(Invalid::new(
                field,
                next_hop,
                format!("of the same family as the prefix {prefix}"),
            ));
        }
        Ok(Self {
            prefix,
            next_hop: Some(hop),
        })
    }

    /// The on-link route to one address.
    #[must_use]
    pub fn to_host(address: IpAddr) -> Self {
        Self {
            prefix: IpNet::from(address),
            next_hop: None,
        }
    }
}

/// A permanent neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: MacAddr,
}

/// Reads a prefix whose host bits are zero; an error names `field`.
pub(crate) fn parse_prefix(field: &str, text: &str) -> Result<IpNet, Invalid> {
    let prefix: IpNet = text.parse().map_err(|_| {
        Invalid::new(
            field,
            text,
            "a prefix is ADDRESS/LENGTH, such as 10.1.0.0/16 or fd00:1::/64",
        )
    })?;
    if prefix.trunc() != prefix {
        let rule = format!(
            "the address has bits set beyond the prefix length: write {}",
            prefix.trunc()
        );
        return Err(Invalid::new(field, text, rule));
    }
    Ok(prefix)
}

/// Reads an address with or without prefix length, of which only the address counts; an error names `field`.
pub(crate) fn parse_address(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()));
    address.ok_or_else(|| Invalid::new(field, text, "an address, such as 10.1.0.1/32 or fd00:1::1/128"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernels_rules() {
        assert!("eth0".parse::<IfName>().is_ok());
        assert!("x".repeat(15).parse::<IfName>().is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "ä", "n%d", &"x".repeat(16)] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_namespace_path_cannot_point_anywhere_else() {
        for good in ["/run/netns/blue", "/proc/17/ns/net", "/var/run/netns/a-b_c"] {
            assert!(NetnsRef::parse("netns", good, None).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "/run/netns/",
            "/run/netns/..",
            "/run/netns/a/b",
            "/proc/x/ns/net",
            "/proc//ns/net",
        ] {
            assert!(NetnsRef::parse("netns", bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces_are_the_same_by_identity_before_path() {
        let id = |inode| Some(NetnsId { device: 4, inode });
        let netns = |path: &str, id| NetnsRef::parse("n", path, id).unwrap();
        assert!(netns("/run/netns/a", id(1)).is_same(&netns("/proc/7/ns/net", id(1))));
        assert!(!netns("/run/netns/a", id(1)).is_same(&netns("/run/netns/a", id(2))));
        assert!(netns("/run/netns/a", None).is_same(&netns("/run/netns/a", id(2))));
    }

    #[test]
    fn hardware_addresses_read_as_they_are_written() {
        let mac = MacAddr([0x02, 0, 0xab, 0xff, 1, 9]);
        assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        for bad in [
            "",
            "02:00",
            "02:00:00:00:00:00:00",
            "0g:00:00:00:00:00",
            "+2:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_with_host_bits_is_refused_with_the_right_one() {
        let error = parse_prefix("prefixes[0]", "10.1.2.3/16").unwrap_err();
        assert!(error.rule.ends_with("write 10.1.0.0/16"), "{error}");
    }
}
