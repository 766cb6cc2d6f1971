//! The messages about blocks, and what is read from them.

use netlink_packet_core::{DefaultNla, Emitable as _, Nla as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcHeader, TcMessage},
};

use crate::loader::tc;

/// `TCA_INGRESS_BLOCK` and `TCA_EGRESS_BLOCK`, which share their numbers.
const INGRESS_BLOCK: u16 = 13;
const EGRESS_BLOCK: u16 = 14;

/// The header that names a block in place of an interface.
pub(super) fn at_block(number: u32) -> TcMessage {
    let mut message = TcMessage::with_index(TcHeader::TCM_IFINDEX_MAGIC_BLOCK.cast_signed());
    message.header.parent = TcHandle::from(number);
    message
}

pub(super) fn qdisc(index: u32, block: u32) -> TcMessage {
    let mut qdisc = tc::qdisc(index, "ingress");
    let block = block.to_ne_bytes().to_vec();
    qdisc
        .attributes
        .push(TcAttribute::Other(DefaultNla::new(INGRESS_BLOCK, block)));
    qdisc
}

/// The numbers of all blocks that a qdisc is bound to.
pub(super) fn blocks_of(qdisc: &TcMessage) -> Vec<u32> {
    numbered(qdisc, &[INGRESS_BLOCK, EGRESS_BLOCK])
}

pub(super) fn ingress_block(message: &RouteNetlinkMessage) -> Option<u32> {
    match message {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => numbered(qdisc, &[INGRESS_BLOCK]).first().copied(),
        _ => None,
    }
}

fn numbered(qdisc: &TcMessage, kinds: &[u16]) -> Vec<u32> {
    let value = |attribute: &TcAttribute| match attribute {
        TcAttribute::Other(nla) if kinds.contains(&nla.kind()) => {
            let mut bytes = vec![0; nla.buffer_len()];
            nla.emit(&mut bytes);
            // An attribute is its length and kind, then the number.
            bytes
                .get(4..)?
                .first_chunk::<4>()
                .map(|bytes| u32::from_ne_bytes(*bytes))
        }
        _ => None,
    };
    qdisc.attributes.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_block_is_read_from_a_qdisc() {
        let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(7, 0x746c_0102));
        assert_eq!(ingress_block(&message), Some(0x746c_0102));
        let without = RouteNetlinkMessage::NewQueueDiscipline(tc::qdisc(7, "ingress"));
        assert_eq!(ingress_block(&without), None);
    }
}
