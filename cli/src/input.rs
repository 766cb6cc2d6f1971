//! Values of flags: read and checked before anything is called.

use std::{str::FromStr, time::Duration};

use clap::Args;
use dataplane_common::limits::{MAX_IFNAME_LEN, MAX_MTU, MIN_MTU};
use ipnet::IpNet;

/// A label: `KEY=VALUE`. Its characters are the server's to judge, the same for every client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Before the first `=`.
    pub(crate) key: String,
    /// After it; may be empty.
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("a label is KEY=VALUE, for example app=firewall".to_owned()),
        }
    }
}

/// The labels as the API carries them.
pub(crate) fn label_map(labels: &[Label]) -> std::collections::HashMap<String, String> {
    labels
        .iter()
        .map(|label| (label.key.clone(), label.value.clone()))
        .collect()
}

/// Whose network namespace a call is about. Without any flag it is the caller's own, as the socket's peer
/// credentials say.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Place {
    /// Network namespace of the workload, by name (as in `ip netns`) or by absolute path [default: this process's
    /// own]
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "pid", value_parser = parse_netns)]
    pub(crate) netns: Option<String>,
    /// Network namespace of the process with this id
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
}

impl Place {
    /// The namespace as NSM's `inodeURL` and the registry's `url` spell it; empty for the caller's own.
    pub(crate) fn url(&self) -> String {
        match (&self.netns, self.pid) {
            (Some(url), _) => url.clone(),
            (None, Some(pid)) => format!("file:///proc/{pid}/ns/net"),
            (None, None) => String::new(),
        }
    }
}

fn parse_netns(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(format!("file://{text}"));
    }
    if text.is_empty() || text.contains('/') || text == "." || text == ".." {
        return Err("a namespace is a name as in `ip netns`, or an absolute path".to_owned());
    }
    Ok(format!("file:///run/netns/{text}"))
}

/// An interface's name.
pub(crate) fn parse_interface(text: &str) -> Result<String, String> {
    let length = text.len();
    if length == 0 || length > MAX_IFNAME_LEN {
        return Err(format!(
            "an interface name has 1 to {MAX_IFNAME_LEN} bytes, this one has {length}"
        ));
    }
    if text == "." || text == ".." || text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err("an interface name is not '.' or '..' and has no '/', ':' or blank".to_owned());
    }
    Ok(text.to_owned())
}

/// Octets, within what a wire may have.
pub(crate) fn parse_mtu(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mtu) if (MIN_MTU..=MAX_MTU).contains(&mtu) => Ok(mtu),
        _ => Err(format!(
            "an MTU is a number of octets from {MIN_MTU} (IPv6 needs it) to {MAX_MTU}"
        )),
    }
}

/// A length of time with its unit, at least a second.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text)
        .map_err(|error| format!("{error}: write a number with its unit, for example 90s, 10m or 1h30m"))?;
    if lifetime < Duration::from_secs(1) {
        return Err("a lifetime is at least 1s".to_owned());
    }
    Ok(lifetime)
}

/// An address prefix without host bits.
pub(crate) fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let prefix = text
        .parse::<IpNet>()
        .map_err(|_| "a prefix is ADDRESS/LENGTH, for example 10.0.0.0/8 or fd00::/8".to_owned())?;
    if prefix.trunc() == prefix {
        Ok(prefix)
    } else {
        Err(format!(
            "address bits behind the prefix length are set: did you mean {}?",
            prefix.trunc()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_becomes_the_url_that_nsm_uses() {
        for (text, url) in [
            ("gateway", "file:///run/netns/gateway"),
            ("/proc/7/ns/net", "file:///proc/7/ns/net"),
        ] {
            assert_eq!(parse_netns(text).unwrap(), url);
        }
        assert_eq!(
            Place {
                netns: None,
                pid: Some(7)
            }
            .url(),
            "file:///proc/7/ns/net"
        );
        assert_eq!(
            Place::default().url(),
            "",
            "the caller's own namespace is for the agent to find out"
        );
        for text in ["", "a/b", ".", "..", "../etc"] {
            assert!(parse_netns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes_have_no_host_bits() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "192.0.2.1/32",
            "::/0",
            "fd00::/8",
            "2001:db8::1/128",
        ] {
            assert_eq!(
                parse_prefix(text).map(|prefix| prefix.to_string()).as_deref(),
                Ok(text)
            );
        }
        for text in [
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::1/8",
            "::/129",
            "x/8",
            "10.0.0.0/-1",
        ] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel_s_rule() {
        for name in ["nsm-1", "exactly15bytes1", "a"] {
            assert!(parse_interface(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            assert!(parse_interface(name).is_err(), "{name}");
        }
    }

    #[test]
    fn labels_keep_everything_behind_the_first_equals_sign() {
        assert_eq!(
            "a=b=c".parse(),
            Ok(Label {
                key: "a".into(),
                value: "b=c".into()
            })
        );
        assert_eq!(
            "a=".parse(),
            Ok(Label {
                key: "a".into(),
                value: String::new()
            })
        );
        assert!("a".parse::<Label>().is_err());
        assert!("=b".parse::<Label>().is_err());
    }
}
