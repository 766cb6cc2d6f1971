//! Routing through an interface: what of the kernel's settings per interface a gateway needs.

use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{AfSpecInet, AfSpecUnspec, LinkAttribute},
};

use super::{link, socket::Request};

/// `IFLA_INET_CONF` of linux/if_link.h.
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_*` of linux/ip.h, and the value that each shall have: packets are routed, not sent back with advice,
/// and may come in where their source would not be routed to.
const GATEWAY: [(u16, u32); 3] = [(1, 1), (6, 0), (8, 0)];

/// Turns routing of IPv4 on for packets that come in at this interface, and for no other.
///
/// The crate's own attribute leaves out settings that are 0, so the nested ones are put together here.
pub(super) fn forward(index: u32) -> Request {
    let mut settings = Vec::new();
    for (number, value) in GATEWAY {
        let setting = DefaultNla::new(number, value.to_ne_bytes().to_vec());
        let at = settings.len();
        settings.resize(at + setting.buffer_len(), 0);
        setting.emit(&mut settings[at..]);
    }
    let settings = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, settings));
    let mut message = link::indexed(index);
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
            settings,
        ])]));
    Request::new(RouteNetlinkMessage::SetLink(message), 0)
}

/// Whether an interface is set up as [`forward`] does.
pub(super) fn forwards(families: &[AfSpecUnspec]) -> bool {
    let settings = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet(settings) => settings.iter().find_map(|setting| match setting {
            AfSpecInet::DevConf(conf) => Some(conf),
            _ => None,
        }),
        _ => None,
    });
    settings.is_some_and(|conf| conf.forwarding == 1 && conf.send_redirects == 0 && conf.rp_filter == 0)
}
