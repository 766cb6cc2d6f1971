//! What a router does with some packets: the least that makes a firewall.

use anyhow::{Context as _, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};

use crate::Net;

/// Before every rule of the kernel's own.
const PRIORITY: u32 = 10;

impl Net {
    /// Drops in silence what is routed here to this TCP port, in both families.
    pub fn block_tcp_port(&mut self, port: u16) -> Result<()> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut rule = RuleMessage::default();
            rule.header.family = family;
            rule.header.action = RuleAction::Blackhole;
            rule.attributes = vec![
                RuleAttribute::Priority(PRIORITY),
                RuleAttribute::IpProtocol(IpProtocol::Tcp),
                RuleAttribute::DestinationPortRange(RulePortRange {
                    start: port,
                    end: port,
                }),
            ];
            self.netlink()
                .change(RouteNetlinkMessage::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL)
                .with_context(|| format!("block TCP port {port}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use crate::NetNs;

    #[test]
    fn a_blocked_port_is_not_reached_and_others_are() {
        let (client, router, server) = (
            NetNs::new("rulec").unwrap(),
            NetNs::new("ruler").unwrap(),
            NetNs::new("rules").unwrap(),
        );
        let pair = |left: &NetNs, right: &NetNs, near: &str, far: &str| {
            left.net(|net| net.add_veth(near, far, Some(right))).unwrap();
        };
        pair(&client, &router, "up", "inside");
        pair(&router, &server, "outside", "down");
        let set = |netns: &NetNs, name: &str, address: &str| {
            netns
                .net(|net| {
                    net.add_address(name, address.parse()?)?;
                    net.set_up(name)
                })
                .unwrap();
        };
        set(&client, "up", "10.0.1.1/24");
        set(&router, "inside", "10.0.1.2/24");
        set(&router, "outside", "10.0.2.2/24");
        set(&server, "down", "10.0.2.1/24");
        let route = |netns: &NetNs, name: &str, prefix: &str, gateway: &str| {
            netns
                .net(|net| net.add_route(name, prefix.parse()?, Some(gateway.parse()?)))
                .unwrap();
        };
        route(&client, "up", "10.0.2.0/24", "10.0.1.2");
        route(&server, "down", "10.0.1.0/24", "10.0.2.2");
        router.sysctl("ipv4/ip_forward", "1").unwrap();
        router.net(|net| net.block_tcp_port(80)).unwrap();
        let reached = |port: u16| {
            let to = std::net::SocketAddr::from(([10, 0, 2, 1], port));
            let _listener = server.run(|| Ok(TcpListener::bind(to)?)).unwrap();
            let limit = std::time::Duration::from_millis(300);
            client
                .run(|| Ok(TcpStream::connect_timeout(&to, limit).is_ok()))
                .unwrap()
        };
        // The first packet may meet an interface that has only just come up.
        crate::eventually(std::time::Duration::from_secs(5), "the open port", || {
            Ok(reached(8080))
        })
        .unwrap();
        assert!(!reached(80));
    }
}
