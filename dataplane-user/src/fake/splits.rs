//! Splits as text.

use dataplane_common::abi::{Hop, HopKind, Split, SplitBranch, SplitFlags, SplitRule};

/// Where what is no flow goes.
pub(super) fn first_of(split: &Split) -> Option<Hop> {
    let first = split.branches.get(usize::try_from(split.first).ok()?)?;
    Some(first.hop)
}

/// What a split does with new flows, by branch: its share of each rule, and of what no rule names. Ids, numbers and slots
/// depend on what was before, and are left out.
pub(super) fn describe(split: &Split, name: impl Fn(u32) -> String) -> String {
    let rules = split
        .rules
        .iter()
        .filter(|rule| rule.flags & SplitRule::COUNTS != 0);
    let rules: Vec<&SplitRule> = rules.collect();
    let branch = |(index, branch): (usize, &SplitBranch)| {
        let kind = match branch.hop.kind() {
            HopKind::Peer => "peer",
            HopKind::Egress => "egress",
            _ => "nowhere",
        };
        let mut shares: Vec<String> = rules.iter().map(|rule| rule.shares[index].to_string()).collect();
        shares.push(split.otherwise[index].to_string());
        let drains = if branch.flags & SplitBranch::DRAINS == 0 {
            ""
        } else {
            " drains"
        };
        format!("{kind} {} {}{drains}", name(branch.hop.ifindex), shares.join("/"))
    };
    let branches = split.branches.iter().enumerate();
    let mut branches: Vec<String> = branches.filter(|(_, b)| b.id != 0).map(branch).collect();
    branches.sort();
    let decides = if split.has(SplitFlags::DECIDES) {
        " decides"
    } else {
        ""
    };
    let traffic: Vec<String> = rules.iter().map(|rule| traffic(rule)).collect();
    let traffic = if traffic.is_empty() {
        String::new()
    } else {
        format!(" of {}", traffic.join(", "))
    };
    format!("split{decides}{traffic} [{}]", branches.join("; "))
}

fn traffic(rule: &SplitRule) -> String {
    let protocol = match rule.protocol_mask {
        0 => "any".to_owned(),
        _ => rule.protocol.to_string(),
    };
    let ports = if rule.flags & SplitRule::PORTS == 0 {
        String::new()
    } else {
        format!(":{}-{}", rule.first_port, rule.last_port)
    };
    let length: u32 = rule.mask.iter().map(|word| word.count_ones()).sum();
    let prefix = match rule.family_mask {
        0 => String::new(),
        _ => format!(" v{}/{length}", rule.family),
    };
    format!("{protocol}{ports}{prefix}")
}
