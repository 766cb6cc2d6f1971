//! What is ours: the mark on everything the agent makes, and the types that only a mark can build.
//!
//! Mistaking somebody else's interface for one of ours would destroy their network, and nothing here could give it
//! back; missing one of ours leaves an idle interface. So an interface counts as ours only when *both* its name
//! follows the scheme and its alias carries this node's mark, and code that deletes takes a [`Managed`].

use std::fmt;

use dataplane_common::limits::MAX_IFALIAS_LEN;

use crate::desired::{IfName, NetnsId, Side, WireId};

/// Begins every alias; the number is the version of the scheme.
const ALIAS_PREFIX: &str = "tieline/1/";
/// Begins every host end's name.
const NAME_PREFIX: &str = "tl";
/// Hexadecimal digits after it.
const NAME_DIGITS: usize = 12;
/// The longest scope kept in clear, in bytes.
const MAX_SCOPE_LEN: usize = 63;

/// Tells the agents of several nodes apart when they share a machine. Part of every mark and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeScope(String);

impl NodeScope {
    /// The scope of the node called `node`. A name that does not fit into a mark is replaced by its hash.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let fits = (1..=MAX_SCOPE_LEN).contains(&node.len())
            && node
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if fits {
            Self(node.to_owned())
        } else {
            Self(format!("{:016x}", hash(&[node.as_bytes()])))
        }
    }

    /// What the node's probes carry, in memory order: never 0. It tells a probe's reply from a workload's own traffic; it
    /// need not be secret, for who answers with it only says that it is alive.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        hash(&[self.0.as_bytes(), b"probe"]) | 1
    }
}

impl fmt::Display for NodeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Side {
    const fn letter(self) -> &'static str {
        match self {
            Self::Client => "c",
            Self::Endpoint => "e",
        }
    }
}

/// The mark of a host end: the alias `tieline/1/<scope>/<connection id>/<c|e>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(String);

impl Mark {
    /// The mark of one end of a wire. An id that does not fit into an alias is replaced by `#` and its hash.
    #[must_use]
    pub fn new(scope: &NodeScope, wire: &WireId, side: Side) -> Self {
        let text = format!("{ALIAS_PREFIX}{scope}/{wire}/{}", side.letter());
        if text.len() <= MAX_IFALIAS_LEN {
            return Self(text);
        }
        let digest = hash(&[wire.0.as_bytes()]);
        Self(format!("{ALIAS_PREFIX}{scope}/#{digest:016x}/{}", side.letter()))
    }

    /// Reads an alias; `None` when it is not a mark of this scope.
    #[must_use]
    pub fn parse(scope: &NodeScope, alias: &str) -> Option<Self> {
        let rest = alias
            .strip_prefix(ALIAS_PREFIX)?
            .strip_prefix(&scope.0)?
            .strip_prefix('/')?;
        let (wire, side) = rest.rsplit_once('/')?;
        (!wire.is_empty() && matches!(side, "c" | "e")).then(|| Self(alias.to_owned()))
    }

    /// The wire and the side, if they stand in it in clear: what begins with `#` may be a hash.
    #[must_use]
    pub fn names(&self, scope: &NodeScope) -> Option<(WireId, Side)> {
        let rest = self.0.strip_prefix(ALIAS_PREFIX)?.strip_prefix(&scope.0)?;
        let (wire, letter) = rest.strip_prefix('/')?.rsplit_once('/')?;
        let side = [Side::Client, Side::Endpoint]
            .into_iter()
            .find(|side| side.letter() == letter)?;
        (!wire.starts_with('#')).then(|| (WireId(wire.to_owned()), side))
    }

    /// The alias.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a veth's host end. It is a function of the wire, the side and the place of the other end, so that an
/// end that moves to another workload gets a new pair while the old one still carries packets, and an agent that
/// was killed finds again what it made.
#[must_use]
pub fn host_name(scope: &NodeScope, wire: &WireId, side: Side, netns: NetnsId, name: &IfName) -> IfName {
    let digest = hash(&[
        scope.0.as_bytes(),
        wire.0.as_bytes(),
        side.letter().as_bytes(),
        &netns.device.to_le_bytes(),
        &netns.inode.to_le_bytes(),
        name.as_str().as_bytes(),
    ]);
    IfName::generated(format!("{NAME_PREFIX}{:0NAME_DIGITS$x}", digest >> 16))
}

/// Whether a name follows the scheme of host ends.
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    name.strip_prefix(NAME_PREFIX)
        .is_some_and(|rest| rest.len() == NAME_DIGITS && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// An interface that is ours to change and delete. Its fields are private: it is built from the mark alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Managed {
    index: u32,
    name: IfName,
    mark: Mark,
}

impl Managed {
    /// Recognises an interface of ours by name and alias.
    #[must_use]
    pub fn recognise(scope: &NodeScope, index: u32, name: &IfName, alias: Option<&str>) -> Option<Self> {
        let mark = Mark::parse(scope, alias?)?;
        is_host_name(name.as_str()).then(|| Self {
            index,
            name: name.clone(),
            mark,
        })
    }

    /// Its index.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &IfName {
        &self.name
    }

    /// Its mark.
    #[must_use]
    pub const fn mark(&self) -> &Mark {
        &self.mark
    }
}

/// FNV-1a over the parts, each ended by a byte that UTF-8 never contains. It need only be stable and well mixed:
/// names are checked against the mark before they are believed.
pub(crate) fn hash(parts: &[&[u8]]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(PRIME);
    let state = parts.iter().fold(OFFSET, |state, part| {
        step(part.iter().copied().fold(state, step), 0xff)
    });
    // FNV's low bits are mixed better than its high ones; fold them.
    state ^ (state << 32) ^ (state >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_valid_and_differ_by_everything_that_places_an_end() {
        let scope = NodeScope::new("n1");
        let mut names = BTreeSet::new();
        for wire in 0..2000 {
            for side in [Side::Client, Side::Endpoint] {
                for inode in [1, 2] {
                    let (netns, inner) = (NetnsId { device: 4, inode }, IfName::new("nsm-1").unwrap());
                    let name = host_name(&scope, &WireId(format!("w-{wire}")), side, netns, &inner);
                    assert!(
                        is_host_name(name.as_str()) && IfName::new(name.as_str()).is_ok(),
                        "{name}"
                    );
                    names.insert(name);
                }
            }
        }
        assert_eq!(names.len(), 8000);
    }

    #[test]
    fn a_mark_leads_back_to_itself_whatever_the_id() {
        let scope = NodeScope::new("n1");
        for id in ["a", "a/b/c", &"x".repeat(4000), "ä ö"] {
            let mark = Mark::new(&scope, &WireId(id.to_owned()), Side::Endpoint);
            assert!(mark.as_str().len() <= MAX_IFALIAS_LEN);
            let names = (id.len() < 200).then(|| (WireId(id.to_owned()), Side::Endpoint));
            assert_eq!(mark.names(&scope), names);
            assert_eq!(Mark::parse(&scope, mark.as_str()), Some(mark));
        }
    }

    #[test]
    fn what_does_not_carry_both_name_and_mark_is_not_ours() {
        let scope = NodeScope::new("n1");
        let ours = IfName::new("tl0123456789ab").unwrap();
        let mark = "tieline/1/n1/w/c";
        assert!(Managed::recognise(&scope, 7, &ours, Some(mark)).is_some());
        for (name, alias) in [
            ("tl0123456789ab", None),
            ("tl0123456789ab", Some("tieline/1/n2/w/c")),
            ("tl0123456789ab", Some("tieline/1/n1/w/x")),
            ("tl0123456789ab", Some("tieline/1/n1//c")),
            ("tl0123456789ab", Some("uplink")),
            ("tl0123456789a", Some(mark)),
            ("eth0", Some(mark)),
        ] {
            let name = IfName::new(name).unwrap();
            assert_eq!(
                Managed::recognise(&scope, 7, &name, alias),
                None,
                "{name} {alias:?}"
            );
        }
    }

    #[test]
    fn a_node_name_that_does_not_fit_a_mark_is_hashed() {
        for node in ["", "a/b", &"n".repeat(64)] {
            let scope = NodeScope::new(node).to_string();
            assert!(
                scope.len() == 16 && scope.bytes().all(|b| b.is_ascii_hexdigit()),
                "{scope}"
            );
        }
    }
}
