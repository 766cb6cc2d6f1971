//! Addresses: one set per family of all that are given out, whatever prefix they came from, so that none is given out
//! twice by construction, and per prefix the last one given, so that a released address comes back as late as possible.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use tieline_model::{ExtraPrefixRequest, Invalid};

use crate::{Refusal, runs::Runs};

/// All addresses in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    taken: [Runs; 2],
    last: BTreeMap<IpNet, IpAddr>,
}

/// What a wire needs.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The service, for errors.
    pub(crate) service: &'a str,
    pub(crate) prefixes: &'a [IpNet],
    pub(crate) excluded: Vec<IpNet>,
    /// Addresses asked for at the client's end and at the endpoint's.
    pub(crate) asked: [&'a [IpAddr]; 2],
}

/// Addresses that are free, and what is remembered if they are taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) client: Vec<IpAddr>,
    pub(crate) endpoint: Vec<IpAddr>,
    last: Vec<(IpNet, IpAddr)>,
}

const FIELDS: [&str; 2] = [
    "connection.context.ip_context.src_ip_addrs",
    "connection.context.ip_context.dst_ip_addrs",
];

const FIELD_EXTRA: &str = "connection.context.ip_context.extra_prefixes";
const FIELD_EXTRA_REQUEST: &str = "connection.context.ip_context.extra_prefix_request";

/// How many bits of a prefix number its addresses.
fn block_bits(prefix: &IpNet) -> u32 {
    u32::from(prefix.max_prefix_len() - prefix.prefix_len())
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(like: &IpNet, number: u128) -> IpAddr {
    match (like, u32::try_from(number)) {
        (IpNet::V4(_), Ok(bits)) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

fn range(prefix: &IpNet) -> (u128, u128) {
    (number(prefix.network()), number(prefix.broadcast()))
}

/// What may be given out of a prefix: not the network's and the broadcast address (RFC 1122 §3.2.1.3), nor the
/// subnet-router anycast address (RFC 4291 §2.6.1), where the prefix is long enough to have them.
fn usable(prefix: &IpNet) -> (u128, u128) {
    let (first, last) = range(prefix);
    if prefix.prefix_len() + 1 >= prefix.max_prefix_len() {
        return (first, last);
    }
    (first + 1, if prefix.addr().is_ipv4() { last - 1 } else { last })
}

impl Addresses {
    /// Finds addresses for a wire, without taking them.
    pub(crate) fn propose(&self, wanted: &Wanted<'_>) -> Result<Proposal, Refusal> {
        for (field, asked) in FIELDS.into_iter().zip(wanted.asked) {
            asked
                .iter()
                .try_for_each(|one| self.check_asked(field, *one, wanted))?;
        }
        if let Some(both) = wanted.asked[0].iter().find(|one| wanted.asked[1].contains(one)) {
            return Err(Invalid::new(
                FIELDS[1],
                both.to_string(),
                "both ends cannot have the same address",
            )
            .into());
        }
        let mut proposal = Proposal::default();
        for v6 in [false, true] {
            let prefixes: Vec<IpNet> = wanted
                .prefixes
                .iter()
                .filter(|prefix| prefix.addr().is_ipv6() == v6)
                .copied()
                .collect();
            if !prefixes.is_empty() {
                self.propose_pair(wanted, &prefixes, &mut proposal)?;
            }
        }
        Ok(proposal)
    }

    fn check_asked(&self, field: &'static str, asked: IpAddr, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        let inside = |prefix: &&IpNet| {
            let (first, last) = usable(prefix);
            prefix.contains(&asked) && (first..=last).contains(&number(asked))
        };
        let invalid = |rule: String| Err(Invalid::new(field, asked.to_string(), rule).into());
        if !wanted.prefixes.iter().any(|prefix| inside(&prefix)) {
            let prefixes = wanted
                .prefixes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            return invalid(format!(
                "lies outside of the prefixes of the service ({prefixes}): ask for one inside, or none"
            ));
        }
        if let Some(excluded) = wanted.excluded.iter().find(|prefix| prefix.contains(&asked)) {
            return invalid(format!(
                "lies in the excluded prefix {excluded}: ask for another one, or none"
            ));
        }
        if self.taken[family(asked)].contains(number(asked)) {
            return Err(Refusal::AddressTaken {
                field,
                address: asked,
            });
        }
        Ok(())
    }

    /// One address for each end, from `prefixes` of one family.
    fn propose_pair(
        &self,
        wanted: &Wanted<'_>,
        prefixes: &[IpNet],
        proposal: &mut Proposal,
    ) -> Result<(), Refusal> {
        let v6 = prefixes.iter().any(|prefix| prefix.addr().is_ipv6());
        let asked = wanted
            .asked
            .map(|asked| asked.iter().find(|one| one.is_ipv6() == v6).copied());
        let same_family = |prefix: &&IpNet| prefix.addr().is_ipv6() == v6;
        let mut skip: Vec<(u128, u128)> = wanted.excluded.iter().filter(same_family).map(range).collect();
        skip.extend(asked.iter().flatten().map(|one| (number(*one), number(*one))));
        let [client, endpoint] = asked;
        let mut find = |asked: Option<IpAddr>, skip: &mut Vec<(u128, u128)>| {
            let found = asked.or_else(|| {
                let (prefix, free) = self.next_free(prefixes, &proposal.last, skip)?;
                proposal.last.push((prefix, free));
                Some(free)
            });
            let found = found.ok_or_else(|| Refusal::AddressesExhausted {
                service: format!("NetworkService {}", wanted.service),
                prefixes: prefixes.to_vec(),
            })?;
            skip.push((number(found), number(found)));
            Ok::<_, Refusal>(found)
        };
        let endpoint = find(endpoint, &mut skip)?;
        let client = find(client, &mut skip)?;
        proposal.endpoint.push(endpoint);
        proposal.client.push(client);
        Ok(())
    }

    /// The next address after the last one given out, round and round each prefix.
    fn next_free(
        &self,
        prefixes: &[IpNet],
        newest: &[(IpNet, IpAddr)],
        skip: &[(u128, u128)],
    ) -> Option<(IpNet, IpAddr)> {
        prefixes.iter().find_map(|prefix| {
            let (first, last) = usable(prefix);
            let taken = &self.taken[family(prefix.addr())];
            let newest = newest
                .iter()
                .rev()
                .find(|(of, _)| of == prefix)
                .map(|(_, one)| *one);
            let from = newest
                .or_else(|| self.last.get(prefix).copied())
                .map_or(first, |one| number(one).saturating_add(1));
            let free = taken.first_free(from.max(first), last, skip);
            let free = free.or_else(|| taken.first_free(first, last.min(from.checked_sub(1)?), skip))?;
            Some((*prefix, address(prefix, free)))
        })
    }

    /// Addresses that the domain of the service gave.
    pub(crate) fn take_over(&self, [client, endpoint]: &[Vec<IpAddr>; 2]) -> Result<Proposal, Refusal> {
        let sides = FIELDS.into_iter().zip([client, endpoint]);
        for (field, addresses) in sides {
            let is_taken = |one: &&IpAddr| self.taken[family(**one)].contains(number(**one));
            if let Some(address) = addresses.iter().find(is_taken).copied() {
                return Err(Refusal::AddressTaken { field, address });
            }
        }
        Ok(Proposal {
            client: client.clone(),
            endpoint: endpoint.clone(),
            last: Vec::new(),
        })
    }

    /// Prefixes for the client itself, from those of the service: first those that it `had`, then those that it names, then
    /// free ones. `proposal` holds the addresses that the same connection gets.
    pub(crate) fn propose_extra(
        &self,
        wanted: &Wanted<'_>,
        requests: &[ExtraPrefixRequest],
        [had, named]: [&[IpNet]; 2],
        proposal: &Proposal,
    ) -> Result<Vec<IpNet>, Refusal> {
        let mut given: Vec<IpNet> = Vec::new();
        for (i, named) in named.iter().enumerate().filter(|(_, one)| !had.contains(one)) {
            let field = format!("{FIELD_EXTRA}[{i}]");
            if !requests.iter().any(|request| request.describes(named)) {
                let rule = "no extra_prefix_request asks for one of its family and length: add one";
                return Err(Invalid::new(field, named.to_string(), rule).into());
            }
            self.check_extra(&field, named, wanted, proposal)?;
        }
        for (i, request) in requests.iter().enumerate() {
            let count = usize::try_from(request.requested()).unwrap_or(usize::MAX);
            let known = had.iter().chain(named);
            let fitting: Vec<IpNet> = known
                .filter(|one| request.describes(one) && !given.contains(one))
                .copied()
                .collect();
            let before = given.len();
            for prefix in fitting.into_iter().take(count) {
                if !given.contains(&prefix) {
                    given.push(prefix);
                }
            }
            while given.len() - before < count {
                let Some(free) = self.free_block(wanted, *request, &given, proposal) else {
                    break;
                };
                given.push(free);
            }
            let found = u32::try_from(given.len() - before).unwrap_or(u32::MAX);
            if found < request.required() {
                return Err(Refusal::ExtraPrefixesExhausted {
                    field: format!("{FIELD_EXTRA_REQUEST}[{i}].required_number"),
                    required: request.required(),
                    length: request.length(),
                    service: wanted.service.to_owned(),
                    found,
                });
            }
        }
        Ok(given)
    }

    fn check_extra(
        &self,
        field: &str,
        named: &IpNet,
        wanted: &Wanted<'_>,
        proposal: &Proposal,
    ) -> Result<(), Refusal> {
        let (first, last) = range(named);
        let invalid = |rule: String| Err(Invalid::new(field, named.to_string(), rule).into());
        let inside = |prefix: &&IpNet| prefix.contains(named) && prefix.prefix_len() < named.prefix_len();
        if !wanted.prefixes.iter().any(|prefix| inside(&prefix)) {
            return invalid(format!(
                "lies in no prefix of NetworkService {}: ask for none by name",
                wanted.service
            ));
        }
        if let Some(excluded) = wanted
            .excluded
            .iter()
            .find(|one| one.contains(named) || named.contains(*one))
        {
            return invalid(format!(
                "meets the excluded prefix {excluded}: ask for another one, or none by name"
            ));
        }
        let own = proposal.client.iter().chain(&proposal.endpoint);
        let free = self.taken[family(named.addr())].first_free_block(first, last, block_bits(named), &[]);
        if free != Some(first) || own.into_iter().any(|address| named.contains(address)) {
            return invalid("addresses in it are in use: ask for another one, or none by name".to_owned());
        }
        Ok(())
    }

    fn free_block(
        &self,
        wanted: &Wanted<'_>,
        request: ExtraPrefixRequest,
        given: &[IpNet],
        proposal: &Proposal,
    ) -> Option<IpNet> {
        let v6 = request.is_ipv6();
        let of_family = |prefix: &&IpNet| prefix.addr().is_ipv6() == v6;
        let hosts = proposal
            .client
            .iter()
            .chain(&proposal.endpoint)
            .map(|ip| IpNet::from(*ip));
        let skip: Vec<(u128, u128)> = hosts
            .chain(wanted.excluded.iter().copied())
            .chain(given.iter().copied())
            .filter(|prefix| of_family(&prefix))
            .map(|prefix| range(&prefix))
            .collect();
        let prefixes = wanted.prefixes.iter().filter(of_family);
        let mut roomy = prefixes.filter(|prefix| prefix.prefix_len() < request.length());
        roomy.find_map(|prefix| {
            let (first, last) = range(prefix);
            let bits = u32::from(prefix.max_prefix_len() - request.length());
            let free = self.taken[usize::from(v6)].first_free_block(first, last, bits, &skip)?;
            IpNet::new(address(prefix, free), request.length()).ok()
        })
    }

    /// Takes every address of the prefixes; or none, and tells the prefix of which one is taken.
    pub(crate) fn take_all(&mut self, prefixes: &[IpNet]) -> Result<(), IpNet> {
        for (i, prefix) in prefixes.iter().enumerate() {
            let (first, last) = range(prefix);
            if !self.taken[family(prefix.addr())].insert_range(first, last) {
                prefixes.iter().take(i).for_each(|one| self.release(one));
                return Err(*prefix);
            }
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, prefix: &IpNet) {
        let (first, last) = range(prefix);
        self.taken[family(prefix.addr())].remove_range(first, last);
    }

    /// Takes what was proposed; the prefixes whose last address changed.
    pub(crate) fn remember(&mut self, proposal: &Proposal) -> Vec<IpNet> {
        self.last.extend(proposal.last.iter().copied());
        proposal.last.iter().map(|(prefix, _)| *prefix).collect()
    }

    /// Everything that is given out: the first and the last address of each range.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let like = [
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ];
        let families = self.taken.iter().zip(like);
        families.flat_map(|(taken, like)| {
            taken
                .all()
                .map(move |(first, last)| (address(&like, first), address(&like, last)))
        })
    }

    /// The last address given out of a prefix.
    pub(crate) fn last(&self, prefix: &IpNet) -> Option<IpAddr> {
        self.last.get(prefix).copied()
    }

    pub(crate) fn set_last(&mut self, prefix: IpNet, one: IpAddr) {
        self.last.insert(prefix, one);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.iter().all(Runs::is_empty)
    }
}
