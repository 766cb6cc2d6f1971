//! Every bound on what the API takes in. Together they bound the memory that one message can claim.

/// The longest name of a service, endpoint or node, in bytes (a DNS name, RFC 1035 §2.3.4).
pub const MAX_NAME_LEN: usize = 253;
/// The longest part of a name between dots, in bytes (RFC 1035 §2.3.4).
pub const MAX_NAME_PART_LEN: usize = 63;
/// The longest connection id, in bytes.
pub const MAX_ID_LEN: usize = 128;
/// The most labels of one object, and the most terms of one selector.
pub const MAX_LABELS: usize = tieline_proto::label::MAX_LABELS;
/// The longest template in a `matches` selector, in bytes.
pub const MAX_TEMPLATE_LEN: usize = 256;
/// The longest interface name, in bytes (the kernel's `IFNAMSIZ` less the terminating zero).
pub const MAX_IFNAME_LEN: usize = 15;
/// The longest path of a network namespace, in bytes.
pub const MAX_NETNS_PATH_LEN: usize = 512;
/// The smallest MTU of a wire, in octets: IPv6 needs it (RFC 8200 §5).
pub const MIN_MTU: u32 = 1280;
/// The largest MTU of a wire, in octets.
pub const MAX_MTU: u32 = 65_535;
/// The most services that one endpoint offers.
pub const MAX_ENDPOINT_SERVICES: usize = 64;
/// The most `matches` of a service.
pub const MAX_MATCHES: usize = 64;
/// The most routes (destinations) of one match.
pub const MAX_DESTINATIONS: usize = 64;
/// The largest weight of a destination.
pub const MAX_WEIGHT: u32 = 1_000_000;
/// The most prefixes, and the most excluded prefixes, of a service or a request.
pub const MAX_PREFIXES: usize = 64;
/// The most ranges of addresses that one registry domain tells another not to give.
pub const MAX_ADDRESS_RANGES: usize = 65_536;
/// The most routes for one side of a wire.
pub const MAX_ROUTES: usize = 128;
/// The most addresses that a request may name for one side.
pub const MAX_REQUESTED_ADDRESSES: usize = 2;
/// The most path segments and mechanism preferences in a request.
pub const MAX_SEGMENTS: usize = 32;
/// The most objects in one apply.
pub const MAX_OBJECTS: usize = 10_000;
/// The largest file of objects, in bytes.
pub const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;
/// The longest cgroup path of a workload, in bytes.
pub const MAX_CGROUP_LEN: usize = 4096;
/// The most traffic selectors of a wiring, and of a wire in all: the kernel's table of a split holds so many.
pub const MAX_TRAFFIC: usize = 8;
/// The most branches of a connection.
pub const MAX_BRANCHES: usize = 8;
/// The most functions that a circuit leads through before its endpoint.
pub const MAX_HOPS: usize = 16;
/// The most positions of an ordered selector: functions and the endpoint.
pub const MAX_STAGES: usize = MAX_HOPS + 1;
/// The most target services of a wiring.
pub const MAX_TARGETS: usize = 64;
/// The highest priority of a wiring; its negation is the lowest.
pub const MAX_PRIORITY: i32 = 1_000_000;
/// The most name servers in one DNS configuration.
pub const MAX_DNS_SERVERS: usize = 8;
/// The most search domains in one DNS configuration.
pub const MAX_SEARCH_DOMAINS: usize = 32;
/// The most policy routes of a connection.
pub const MAX_POLICIES: usize = 16;
/// The most extra prefixes of a connection.
pub const MAX_EXTRA_PREFIXES: usize = 16;
/// The most DNS configurations of a service.
pub const MAX_DNS_CONFIGS: usize = 16;
