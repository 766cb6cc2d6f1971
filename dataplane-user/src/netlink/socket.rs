//! A netlink socket of one namespace.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

/// Large enough for any single message the kernel sends in a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Room in the kernel for the answers to one batch.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// The most requests in one buffer: their answers fit the queue, and the buffer a default send limit.
const MAX_REQUESTS: usize = 256;
/// The most bytes in one buffer.
const MAX_BYTES: usize = 96 * 1024;

/// A request and its `NLM_F_*` flags besides request and acknowledge.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

impl Request {
    pub(crate) const fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// What the kernel answered to one request: its messages, or its error.
pub(crate) type Answer = io::Result<Vec<RouteNetlinkMessage>>;

/// A dump that is being read.
pub(crate) struct Dump {
    sequence: u32,
    /// Whether something changed meanwhile, so that it may not hold everything that was there all the time.
    disturbed: bool,
}

/// A socket, bound to the namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    datagram: Vec<u8>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        // Dumps that the kernel filters; kernels without it send more, which is filtered here as well.
        let _ = socket.set_netlink_get_strict_chk(true);
        setsockopt(&socket, RcvBufForce, &QUEUE_BYTES)?;
        Ok(Self {
            socket,
            sequence: 1,
            buffer: Vec::new(),
            datagram: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Sends groups of requests, each group whole in one buffer, and returns the answers in order.
    pub(crate) fn groups(&mut self, groups: Vec<Vec<Request>>) -> io::Result<Vec<Vec<Answer>>> {
        let mut answers = Vec::with_capacity(groups.len());
        let mut pending = Vec::new();
        self.buffer.clear();
        let first = self.sequence;
        let mut base = first;
        for group in groups {
            let count = pending.iter().sum::<usize>();
            let full = count + group.len() > MAX_REQUESTS || self.buffer.len() > MAX_BYTES;
            if full && count > 0 {
                self.exchange(base, &mut pending, &mut answers)?;
                base = self.sequence;
            }
            pending.push(group.len());
            for request in group {
                self.append(request);
            }
        }
        self.exchange(base, &mut pending, &mut answers)?;
        Ok(answers)
    }

    /// Sends requests that do not depend on each other and returns the answers in order.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<Answer>> {
        let groups = self.groups(requests.into_iter().map(|request| vec![request]).collect())?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// Sends one request.
    pub(crate) fn one(&mut self, message: RouteNetlinkMessage, flags: u16) -> Answer {
        let answers = self.batch(vec![Request::new(message, flags)])?;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof)))
    }

    /// Asks for a dump and hands each message to `each`. A dump that something disturbed is taken again.
    pub(crate) fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        each: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        const TRIES: usize = 8;
        let mut last = io::Error::from(io::ErrorKind::Interrupted);
        for _ in 0..TRIES {
            match self.dump_once(message, &each) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    fn dump_once<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        each: &impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut dump = self.begin_dump(message)?;
        let mut found = Vec::new();
        while self.read_dump(&mut dump, &mut |message| found.extend(each(message)))? {}
        if dump.disturbed {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        Ok(found)
    }

    /// Asks for a dump, which [`Self::read_dump`] reads. Nothing else is asked of this socket meanwhile.
    pub(crate) fn begin_dump(&mut self, message: &RouteNetlinkMessage) -> io::Result<Dump> {
        self.buffer.clear();
        let sequence = self.sequence;
        self.append(Request::new(message.clone(), NLM_F_DUMP));
        self.socket.send(&self.buffer, 0)?;
        self.buffer.clear();
        Ok(Dump {
            sequence,
            disturbed: false,
        })
    }

    /// Reads the next part of a dump, some dozens of messages, and says whether there is more.
    pub(crate) fn read_dump(
        &mut self,
        dump: &mut Dump,
        each: &mut impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        let mut done = false;
        self.receive(|header, payload| {
            if header.sequence_number != dump.sequence {
                return Ok(());
            }
            dump.disturbed |= header.flags & NLM_F_DUMP_INTR != 0;
            match payload {
                NetlinkPayload::InnerMessage(message) => each(message),
                NetlinkPayload::Done(_) => done = true,
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
            Ok(())
        })?;
        Ok(!done)
    }

    fn append(&mut self, request: Request) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | request.flags;
        if request.flags & NLM_F_DUMP != NLM_F_DUMP {
            header.flags |= NLM_F_ACK;
        }
        header.sequence_number = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
        message.finalize();
        let start = self.buffer.len();
        // Netlink messages begin at multiples of 4.
        let end = start + message.buffer_len().next_multiple_of(4);
        self.buffer.resize(end, 0);
        if let Some(room) = self.buffer.get_mut(start..) {
            message.serialize(room);
        }
    }

    fn exchange(
        &mut self,
        base: u32,
        pending: &mut Vec<usize>,
        answers: &mut Vec<Vec<Answer>>,
    ) -> io::Result<()> {
        let count: usize = pending.iter().sum();
        if count == 0 {
            answers.extend(pending.drain(..).map(|_| Vec::new()));
            return Ok(());
        }
        self.socket.send(&self.buffer, 0)?;
        self.buffer.clear();
        let mut flat: Vec<Answer> = std::iter::repeat_with(|| Ok(Vec::new())).take(count).collect();
        let mut open = count;
        while open > 0 {
            self.receive(|header, payload| {
                let position = header.sequence_number.wrapping_sub(base) as usize;
                let Some(answer) = flat.get_mut(position) else {
                    return Ok(());
                };
                match payload {
                    NetlinkPayload::InnerMessage(message) => {
                        if let Ok(messages) = answer {
                            messages.push(message);
                        }
                    }
                    NetlinkPayload::Error(error) => {
                        open -= 1;
                        if error.code.is_some() {
                            *answer = Err(error.to_io());
                        }
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        let mut flat = flat.into_iter();
        answers.extend(
            pending
                .drain(..)
                .map(|length| flat.by_ref().take(length).collect::<Vec<_>>()),
        );
        Ok(())
    }

    /// Receives one datagram and hands over its messages. Those that cannot be read are not about anything of ours.
    fn receive(
        &mut self,
        mut each: impl FnMut(&NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.datagram.clear();
        while let Err(error) = self.socket.recv(&mut self.datagram, 0) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        messages(&self.datagram, &mut each)
    }
}

/// Splits a datagram into messages.
pub(crate) fn messages<I: NetlinkDeserializable>(
    datagram: &[u8],
    each: &mut impl FnMut(&NetlinkHeader, NetlinkPayload<I>) -> io::Result<()>,
) -> io::Result<()> {
    let mut rest = datagram;
    while let Some(length) = rest
        .first_chunk::<4>()
        .map(|bytes| u32::from_ne_bytes(*bytes) as usize)
    {
        let Some(one) = rest.get(..length).filter(|_| length >= 16) else {
            break;
        };
        if let Ok(message) = NetlinkMessage::<I>::deserialize(one) {
            let (header, payload) = message.into_parts();
            each(&header, payload)?;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(())
}
