//! The form of the agent's probes: ICMP echo requests, sent into a workload as if its wire's other end had sent them.
//!
//! The workload's kernel answers. A position that is marked as probed recognises the answer by its length first, which
//! few frames have, then by the ICMP header and the node's cookie; it notes the time and lets the answer go no further.
//! Identifier and sequence number together are the slot of the position, so an answer for another position passes.

use crate::flow::Family;

/// Octets of a probe from the Ethernet header on, IPv4 and IPv6 alike.
pub const FRAME_LEN: u32 = 113;
/// Where the window begins that [`is_reply`] looks at: behind the Ethernet header.
pub const WINDOW_AT: u32 = 14;
/// Octets of that window: the longer of the two headers, the ICMP header and the cookie.
pub const WINDOW_LEN: usize = 56;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// Version 4, header without options.
const IPV4_PLAIN: u8 = 0x45;
const ICMP: u8 = 1;
const ECHO_REPLY: u8 = 0;
const ICMPV6: u8 = 58;
const ECHO_REPLY_V6: u8 = 129;

/// Whether the frame of [`FRAME_LEN`] octets with this window answers a probe of the position with this `slot`. `cookie`
/// is in memory order.
#[must_use]
#[inline(always)]
pub const fn is_reply(family: Family, window: &[u8; WINDOW_LEN], slot: u32, cookie: u64) -> bool {
    match family {
        Family::V4 => {
            window[0] == IPV4_PLAIN
                && window[9] == ICMP
                && window[IPV4_LEN] == ECHO_REPLY
                && has(window, IPV4_LEN, slot, cookie)
        }
        Family::V6 => {
            window[6] == ICMPV6 && window[IPV6_LEN] == ECHO_REPLY_V6 && has(window, IPV6_LEN, slot, cookie)
        }
    }
}

/// Whether the ICMP header at `at` and the data behind it hold slot and cookie.
#[inline(always)]
const fn has(window: &[u8; WINDOW_LEN], at: usize, slot: u32, cookie: u64) -> bool {
    let number = u32::from_be_bytes([window[at + 4], window[at + 5], window[at + 6], window[at + 7]]);
    let data = u64::from_ne_bytes([
        window[at + 8],
        window[at + 9],
        window[at + 10],
        window[at + 11],
        window[at + 12],
        window[at + 13],
        window[at + 14],
        window[at + 15],
    ]);
    number == slot && data == cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u32 = 0x0001_0203;
    const COOKIE: [u8; 8] = *b"tieline!";

    fn window(family: Family) -> [u8; WINDOW_LEN] {
        let mut window = [0; WINDOW_LEN];
        let (at, kind) = match family {
            Family::V4 => {
                (window[0], window[9]) = (IPV4_PLAIN, ICMP);
                (IPV4_LEN, ECHO_REPLY)
            }
            Family::V6 => {
                (window[0], window[6]) = (0x60, ICMPV6);
                (IPV6_LEN, ECHO_REPLY_V6)
            }
        };
        window[at] = kind;
        window[at + 4..at + 8].copy_from_slice(&SLOT.to_be_bytes());
        window[at + 8..at + 16].copy_from_slice(&COOKIE);
        window
    }

    #[test]
    fn a_reply_is_known_and_nothing_that_differs_from_it() {
        let cookie = u64::from_ne_bytes(COOKIE);
        for (family, other, at) in [(Family::V4, Family::V6, 20), (Family::V6, Family::V4, 40)] {
            let reply = window(family);
            assert!(is_reply(family, &reply, SLOT, cookie));
            assert!(!is_reply(other, &reply, SLOT, cookie));
            assert!(!is_reply(family, &reply, SLOT + 1, cookie));
            assert!(!is_reply(family, &reply, SLOT, cookie + 1));
            for (octet, about) in [
                (at, "type"),
                (at + 5, "identifier"),
                (at + 7, "sequence"),
                (at + 15, "cookie"),
            ] {
                let mut changed = reply;
                changed[octet] ^= 8;
                assert!(!is_reply(family, &changed, SLOT, cookie), "{about}");
            }
        }
        let mut with_options = window(Family::V4);
        with_options[0] = 0x46;
        assert!(!is_reply(Family::V4, &with_options, SLOT, cookie));
    }
}
