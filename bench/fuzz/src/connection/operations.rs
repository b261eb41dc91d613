//! What the input can make happen after the handshake.

use braid_dataplane::checksum::sum;
use braid_dataplane::io::PortId;
use braid_dataplane::time::Duration;
use braid_dataplane::wire::icmp::{IcmpError, IcmpKind};
use braid_dataplane::wire::mptcp::{
    AddressIds, DataAck, Dss, DssMapping, MptcpOption, dss_checksum,
};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::TcpOptions;
use braid_dataplane::wire::types::{AddressId, DataSeq, Key, Token};

use super::peer::{Mapped, PEERS_MAX, Peer};
use super::{Fuzz, PAYLOAD_MAX, ROOM, keys, packet, stream, subflow_path, tuple};

impl Fuzz<'_> {
    pub(super) fn operation(&mut self, what: u8, how: u8) {
        match what {
            0..=3 => self.data(how),
            4 => self.resend(how),
            5 => self.well_behaved(how),
            6 => self.ack(how),
            7 => self.any(how),
            8 => self.signal(how),
            9 => self.join(how),
            10 => self.write(how),
            11 => self.time(how),
            12 => self.owner(how),
            13 => self.close_or_port(how),
            14 => self.fin_or_reset(how),
            _ => self.odd_mapping(how),
        }
    }

    fn some_peer(&self, how: u8) -> usize {
        usize::from(how & 3) % self.world.peers.len()
    }

    /// A DATA_ACK of everything that was received.
    pub(super) fn data_ack_option(&self, back: u64) -> MptcpOption {
        MptcpOption::Dss(Dss {
            data_ack: Some(self.data_ack(back)),
            ..Dss::default()
        })
    }

    fn data_ack(&self, back: u64) -> DataAck {
        let world = &self.world;
        let end = world.remote_start + world.data_end + u64::from(world.data_fin) - back;
        DataAck {
            value: if self.wide { end.0 } else { end.low().into() },
            wide: self.wide,
        }
    }

    fn length(&mut self) -> usize {
        let byte = usize::from(self.input.u8());
        match byte >> 6 {
            0 => byte & 0x3f,
            1 => 1000,
            2 => PAYLOAD_MAX,
            _ => (byte & 0x3f) * 20,
        }
    }

    /// New data under a new mapping.
    fn data(&mut self, how: u8) {
        let i = self.some_peer(how);
        let shape = self.input.u8();
        let len = self.length();
        let next = self.world.sent_to - self.world.start;
        // Where the stream goes on, or near there; what an honest peer maps once stays.
        let offset = match shape & 3 {
            0 | 1 => self.stream_next(),
            2 => next.saturating_add_signed(self.input.near().into()),
            _ => self.conn.app().received,
        };
        let offset = offset.min(next + 100_000);
        // A mapping may be longer than the first segment under it.
        let whole = if shape & 4 == 0 { len } else { len * 2 + 1 };
        let ssn = self.world.peers[i].next;
        if whole > 0 {
            let mapped = Mapped {
                ssn,
                offset,
                len: u32::try_from(whole).expect("short"),
            };
            if i == 0 && offset != u64::from(ssn - 1) {
                self.linear = false;
            }
            let peer = &mut self.world.peers[i];
            peer.table.push(mapped);
            peer.next += mapped.len;
        }
        let fin = shape & 0x18 == 0x18 && whole + 1 < 65_536;
        let broken = self.world.checksum && how & 0x0c == 0x0c;
        let option = self.mapping(ssn, offset, whole, fin, shape, broken);
        let sent_to = self.world.start + offset + whole as u64 + u64::from(fin);
        self.world.sent_to = self.world.sent_to.later(sent_to);
        self.send_data(i, ssn, len, (shape & 0x20 == 0).then_some(option), shape);
    }

    /// The first byte of the stream that no mapping has covered, where mappings are honest:
    /// DATA_FINs count for nothing.
    pub(super) fn stream_next(&self) -> u64 {
        let ends = self.world.peers.iter().flat_map(|peer| &peer.table);
        ends.map(|mapped| mapped.offset + u64::from(mapped.len))
            .max()
            .unwrap_or(0)
    }

    fn mapping(
        &mut self,
        ssn: u32,
        offset: u64,
        len: usize,
        fin: bool,
        shape: u8,
        broken: bool,
    ) -> MptcpOption {
        let dsn = self.world.start + offset;
        let wide = shape & 0x40 != 0;
        let declared = u16::try_from(len).expect("short") + u16::from(fin);
        let checksum = self.world.checksum.then(|| {
            let payload = sum(stream::peers(offset, len));
            let right = dss_checksum(dsn.0, ssn, declared, payload);
            if broken { right ^ 0x0100 } else { right }
        });
        MptcpOption::Dss(Dss {
            data_ack: (shape & 0x80 == 0).then(|| self.data_ack(0)),
            mapping: Some(DssMapping {
                dsn: if wide { dsn.0 } else { dsn.low().into() },
                wide,
                ssn,
                len: declared,
                checksum,
            }),
            data_fin: fin,
        })
    }

    fn send_data(
        &mut self,
        i: usize,
        ssn: u32,
        len: usize,
        option: Option<MptcpOption>,
        shape: u8,
    ) {
        let mut options = self.plain_options(i);
        if let Some(option) = option {
            options.mptcp.push(option);
        }
        let peer = &self.world.peers[i];
        let (seq, ack) = (peer.isn + ssn, peer.received);
        let window = if shape & 0x10 == 0 { 0x0fff } else { 0 };
        self.deliver(i, Flags::ACK | Flags::PSH, seq, ack, window, options, len);
    }

    /// Bytes that were mapped before, again or for the first time, any range of them, with the
    /// mapping or without.
    fn resend(&mut self, how: u8) {
        let i = self.some_peer(how);
        let (which, from, shape) = (self.input.u8(), self.input.u8(), self.input.u8());
        let len = self.length();
        let peer = &self.world.peers[i];
        if peer.table.is_empty() {
            return;
        }
        let count = peer.table.len();
        let mapped = peer.table[count - 1 - usize::from(which) % count];
        let start = mapped.ssn + (mapped.len * u32::from(from) / 256);
        let len = len.min((peer.next - start) as usize);
        let whole = mapped.len as usize;
        let option = (how & 4 == 0)
            .then(|| self.mapping(mapped.ssn, mapped.offset, whole, false, shape, how & 8 != 0));
        self.send_data(i, start, len, option, shape);
    }

    /// The peer takes everything on every subflow, and says so.
    fn well_behaved(&mut self, how: u8) {
        self.wide = how & 8 != 0;
        for i in 0..self.world.peers.len() {
            if self.world.peers[i].remote_isn.is_none() {
                continue;
            }
            let mut options = self.plain_options(i);
            options.mptcp.push(self.data_ack_option(0));
            let peer = &self.world.peers[i];
            let (seq, ack) = (peer.isn + peer.next, peer.received);
            self.deliver(i, Flags::ACK, seq, ack, 0x0fff, options, 0);
            if how & 4 != 0 {
                return;
            }
        }
    }

    /// Acknowledgments and windows of any kind.
    fn ack(&mut self, how: u8) {
        let i = self.some_peer(how);
        let (shape, window) = (self.input.u8(), self.input.u16());
        let mut options = self.plain_options(i);
        if shape & 1 == 0 {
            let back = u64::from(self.input.u8()) << (shape >> 4);
            options.mptcp.push(self.data_ack_option(back));
        } else if shape & 2 != 0 {
            // Of something never sent.
            options.mptcp.push(MptcpOption::Dss(Dss {
                data_ack: Some(DataAck {
                    value: self.input.u64(),
                    wide: shape & 4 != 0,
                }),
                ..Dss::default()
            }));
        }
        let (seq, received) = {
            let peer = &self.world.peers[i];
            (peer.isn + peer.next, peer.received)
        };
        let ack = if shape & 8 == 0 {
            received
        } else {
            received + self.input.near().cast_unsigned()
        };
        if how & 8 != 0 {
            let left = received - u32::from(self.input.u8()) * 200;
            options.sack.push((left, left + 1440));
        }
        self.deliver(i, Flags::ACK, seq, ack, window, options, 0);
    }

    /// A segment without sense.
    fn any(&mut self, how: u8) {
        let i = self.some_peer(how);
        let flags = Flags::from_bits(self.input.u8());
        let seq =
            self.world.peers[i].isn + self.world.peers[i].next + self.input.near().cast_unsigned();
        let ack = self.world.peers[i].received + self.input.near().cast_unsigned();
        let window = self.input.u16();
        let mut options = if how & 4 == 0 {
            self.plain_options(i)
        } else {
            TcpOptions::default()
        };
        if how & 8 != 0 {
            // Whatever the bytes mean.
            let mut bytes = [0; 28];
            let len = usize::from(self.input.u8() % 26) + 2;
            for byte in &mut bytes[2..len] {
                *byte = self.input.u8();
            }
            (bytes[0], bytes[1]) = (30, u8::try_from(len).expect("short"));
            // It may declare a mapping, or plain TCP, or end the connection.
            self.lie();
            options.mptcp.push(MptcpOption::parse(&bytes[..len]));
        }
        // Bytes of an honest peer are mapped, even where they come unasked.
        let len = 0;
        self.deliver(i, flags, seq, ack, window, options, len);
    }

    /// From now on a mapping may say anything.
    fn lie(&mut self) {
        self.honest = false;
        self.linear = false;
        self.world.sent_to = DataSeq(self.world.sent_to.0.wrapping_add(1 << 33));
    }

    /// Signals besides data.
    fn signal(&mut self, how: u8) {
        let i = self.some_peer(how);
        let (kind, id) = (self.input.u8(), self.input.u8() & 7);
        let wrong = u64::from(how & 0x0c == 0x0c);
        let world = &self.world;
        let Some(remote_key) = world.remote_key else {
            return;
        };
        let addr = [10, 77, id, 2];
        let option = match kind % 8 {
            0 => MptcpOption::AddAddr {
                echo: false,
                address_id: AddressId(id),
                addr: addr.into(),
                port: (kind & 8 != 0).then_some(8080),
                hmac: (world.version == 1).then(|| {
                    let port = if kind & 8 != 0 { 8080 } else { 0 };
                    keys::add_addr([world.key, remote_key], id, addr, port) ^ wrong
                }),
            },
            1 => MptcpOption::AddAddr {
                echo: true,
                address_id: AddressId(id),
                addr: [10, 77, id, 1].into(),
                port: None,
                hmac: None,
            },
            2 => MptcpOption::RemoveAddr {
                ids: AddressIds::single(AddressId(id)),
            },
            3 => MptcpOption::MpPrio {
                backup: kind & 8 != 0,
                address_id: (kind & 16 != 0).then_some(AddressId(id)),
            },
            4 => MptcpOption::MpFail {
                dsn: (world.remote_start + u64::from(id) * 500).0,
            },
            5 => MptcpOption::FastClose {
                receiver_key: Key(remote_key ^ u64::from(kind & 8 != 0)),
            },
            6 => MptcpOption::MpCapable {
                version: world.version,
                flags: braid_dataplane::wire::mptcp::MpCapableFlags::HMAC_SHA256,
                sender_key: Some(Key(world.key)),
                receiver_key: Some(Key(remote_key ^ wrong)),
                data_len: None,
                checksum: None,
            },
            _ => MptcpOption::TcpRst {
                flags: kind >> 4,
                reason: id,
            },
        };
        let mut options = self.plain_options(i);
        options.mptcp.push(option);
        let peer = &self.world.peers[i];
        let (seq, ack) = (peer.isn + peer.next, peer.received);
        let flags = if kind & 0x20 != 0 {
            Flags::RST | Flags::ACK
        } else {
            Flags::ACK
        };
        self.deliver(i, flags, seq, ack, 0x0fff, options, 0);
    }

    /// A place for another subflow: a new one, or that of one that is gone.
    fn place(&mut self, peer: Peer) -> Option<usize> {
        let peers = &mut self.world.peers;
        if peers.len() < PEERS_MAX {
            peers.push(peer);
            return Some(peers.len() - 1);
        }
        let free = peers.iter().skip(1).position(|peer| peer.id.is_none())? + 1;
        peers[free] = peer;
        Some(free)
    }

    /// Subflows: opened by either side, answered rightly and wrongly.
    fn join(&mut self, how: u8) {
        let path = self.input.u8();
        let Some(remote_key) = self.world.remote_key else {
            return;
        };
        self.ports += 1;
        let number = u32::from(self.ports);
        let path_id = path & 3;
        match how & 3 {
            // The peer opens one.
            0 => {
                let ends = tuple(path_id, 7, 50_000 + self.ports);
                let peer = Peer::new(ends, true, 0x7fff_ff00 + number, number);
                let Some(i) = self.place(peer) else {
                    return;
                };
                let token = self.world.remote_token ^ u32::from(how & 0x0c == 0x0c);
                let mut options = self.join_syn_options();
                options.mptcp.push(MptcpOption::MpJoinSyn {
                    backup: path & 4 != 0,
                    address_id: AddressId(path >> 3 & 7),
                    token: Token(token),
                    nonce: number,
                });
                let peer = &self.world.peers[i];
                let syn = packet(peer, Flags::SYN, peer.isn, SeqNumber(0), 0xffff, options, 0);
                let sub = subflow_path(path_id, ends, false);
                // The engine finds the connection by its token.
                if token == self.world.remote_token {
                    let accepted = self.cx(|conn, cx| conn.accept_join(cx, sub, &syn));
                    self.drain();
                    if accepted.is_err() {
                        self.world.peers.remove(i);
                        return;
                    }
                    self.poll();
                    if path & 0x40 == 0 {
                        self.join_ack(i, how, remote_key);
                    }
                } else {
                    self.world.peers.remove(i);
                }
            }
            // It is opened from this side.
            1 => {
                let ends = tuple(path_id, 50_000 + self.ports, 7);
                let peer = Peer::new(ends, false, 0x7fff_ff00 + number, number);
                let Some(i) = self.place(peer) else {
                    return;
                };
                let sub = subflow_path(path_id, ends, path & 4 != 0);
                let opened = self.cx(|conn, cx| conn.open_subflow(cx, sub));
                self.drain();
                if opened.is_err() {
                    self.world.peers.remove(i);
                    return;
                }
                self.poll();
                if path & 0x40 == 0 {
                    self.join_syn_ack(i, how, remote_key);
                }
            }
            2 => {
                let i = usize::from(path) % self.world.peers.len();
                self.join_ack(i, how, remote_key);
            }
            _ => {
                let i = usize::from(path) % self.world.peers.len();
                self.join_syn_ack(i, how, remote_key);
            }
        }
    }

    fn join_syn_options(&self) -> TcpOptions {
        TcpOptions {
            mss: Some(1460),
            window_scale: Some(super::PEER_SHIFT),
            sack_permitted: self.config.tcp.sack,
            ..TcpOptions::default()
        }
    }

    fn peer_hmac(&self, i: usize, how: u8, remote_key: u64) -> [u8; 20] {
        let peer = &self.world.peers[i];
        let mut hmac = keys::join(
            self.world.version,
            [self.world.key, remote_key],
            [peer.nonce, peer.remote_nonce],
        );
        hmac[3] ^= u8::from(how & 0x0c == 0x0c);
        hmac
    }

    /// The third ACK of a join that the peer has begun.
    fn join_ack(&mut self, i: usize, how: u8, remote_key: u64) {
        let peer = &self.world.peers[i];
        if !peer.opener || peer.remote_isn.is_none() {
            return;
        }
        let (seq, ack) = (peer.isn + 1, peer.received);
        let hmac = self.peer_hmac(i, how, remote_key);
        let mut options = self.plain_options(i);
        options.mptcp.push(MptcpOption::MpJoinAck { hmac });
        self.deliver(i, Flags::ACK, seq, ack, 0x0fff, options, 0);
    }

    /// The answer to a join from this side.
    fn join_syn_ack(&mut self, i: usize, how: u8, remote_key: u64) {
        let peer = &self.world.peers[i];
        if peer.opener || peer.remote_isn.is_none() {
            return;
        }
        let (seq, ack, nonce) = (peer.isn, peer.received, peer.nonce);
        let hmac = self.peer_hmac(i, how, remote_key);
        let mut options = self.join_syn_options();
        let (first, _) = hmac.split_first_chunk().expect("twenty bytes");
        options.mptcp.push(MptcpOption::MpJoinSynAck {
            backup: false,
            address_id: AddressId(2),
            hmac: u64::from_be_bytes(*first),
            nonce,
        });
        self.deliver(i, Flags::SYN | Flags::ACK, seq, ack, 0xffff, options, 0);
        self.poll();
        // Its third ACK is acknowledged, or is not.
        if how & 4 == 0 {
            let mut options = self.plain_options(i);
            options.mptcp.push(self.data_ack_option(0));
            let ack = self.world.peers[i].received;
            self.deliver(i, Flags::ACK, seq + 1, ack, 0x0fff, options, 0);
        }
    }

    /// The application writes, reads or stops reading.
    fn write(&mut self, how: u8) {
        let amount = u64::from(self.input.u8()) * 64;
        let app = self.conn.app_mut();
        if !app.finished {
            app.to_send += amount;
        }
        app.idle = how & 0x0c == 0x0c;
        if !app.idle {
            self.cx(|conn, cx| conn.wake_reader(cx));
        }
    }

    fn time(&mut self, how: u8) {
        if how & 3 != 0 {
            for _ in 0..how & 3 {
                self.timer();
            }
            return;
        }
        let ms = u64::from(self.input.u8()) << (how >> 1 & 6);
        let until = self.now + Duration::from_millis(ms);
        // A worker is late, but not by more than a little.
        for _ in 0..64 {
            match self.conn.next_deadline() {
                Some(at) if at <= until => self.timer(),
                _ => break,
            }
        }
        self.now = self.now.max(until);
    }

    /// Calls of the control plane.
    fn owner(&mut self, how: u8) {
        let byte = self.input.u8();
        let i = usize::from(byte) % self.world.peers.len();
        let id = self.world.peers[i].id;
        match how & 7 {
            0 => self.cx(|conn, cx| {
                let addr = [10, 77, byte & 3, 1].into();
                conn.announce(cx, AddressId(byte >> 4), addr, None);
            }),
            1 => self.cx(|conn, cx| conn.remove_addresses(cx, &[AddressId(byte >> 4)])),
            2 => {
                if let Some(id) = id {
                    self.cx(|conn, cx| conn.set_backup(cx, id, byte & 0x80 != 0));
                }
            }
            3 => {
                if let Some(id) = id {
                    let reason = (byte & 0x80 != 0).then_some(1);
                    self.cx(|conn, cx| conn.close_subflow(cx, id, reason));
                }
            }
            4 => {
                self.cx(|conn, cx| conn.release_frames(cx));
            }
            5 => {
                // ICMP about something sent lately.
                if let Some(id) = id {
                    let peer = &self.world.peers[i];
                    let error = IcmpError {
                        kind: if byte & 0x80 != 0 {
                            IcmpKind::PacketTooBig {
                                mtu: u32::from(self.input.u16()),
                            }
                        } else {
                            IcmpKind::Unreachable {
                                code: byte >> 4 & 7,
                            }
                        },
                        reporter: [10, 77, 0, 9].into(),
                        tuple: peer.tuple,
                        seq: peer.received - u32::from(self.input.u8()) * 16,
                    };
                    self.cx(|conn, cx| conn.on_icmp(cx, id, &error));
                }
            }
            6 => {
                let _ = self.conn.info(self.now);
            }
            _ => {
                self.world.room = if byte & 0x80 != 0 {
                    u32::from(byte & 0x0f)
                } else {
                    ROOM
                };
            }
        }
    }

    /// Ends, and ports that come and go.
    fn close_or_port(&mut self, how: u8) {
        match how & 7 {
            0 => self.conn.app_mut().finished = true,
            1 => self.cx(|conn, cx| conn.close(cx)),
            2 => self.conn.app_mut().abort = true,
            3 => self.cx(|conn, cx| conn.abort(cx)),
            _ => {
                let port = how & 3;
                self.world.no_carrier ^= 1 << port;
                let down = self.world.no_carrier & 1 << port != 0;
                let port = PortId(port.into());
                self.cx(|conn, cx| {
                    if down {
                        conn.on_port_down(cx, port);
                    } else {
                        conn.on_port_up(cx, port);
                    }
                });
            }
        }
    }

    /// The peer ends a subflow, with or without MPTCP options, or its stream.
    fn fin_or_reset(&mut self, how: u8) {
        let i = self.some_peer(how);
        let mut options = self.plain_options(i);
        let flags = if how & 8 == 0 {
            Flags::FIN | Flags::ACK
        } else {
            Flags::RST | Flags::ACK
        };
        if how & 4 == 0 {
            let next = self.stream_next();
            let shape = self.input.u8();
            let option = self.mapping(0, next, 0, true, shape, false);
            options.mptcp.push(option);
            self.world.sent_to = self.world.sent_to.later(self.world.start + next + 1);
        }
        let peer = &self.world.peers[i];
        let (seq, ack) = (peer.isn + peer.next, peer.received);
        self.deliver(i, flags, seq, ack, 0x0fff, options, 0);
    }

    /// Mappings that contradict, reach back or far ahead, are infinite or empty. In an honest
    /// run: a DATA_FIN on its own.
    fn odd_mapping(&mut self, how: u8) {
        let i = self.some_peer(how);
        let shape = self.input.u8();
        if self.honest {
            let mut options = self.plain_options(i);
            let next = self.stream_next();
            let option = self.mapping(0, next, 0, true, shape, how & 8 != 0);
            options.mptcp.push(option);
            self.world.sent_to = self.world.sent_to.later(self.world.start + next + 1);
            let peer = &self.world.peers[i];
            let (seq, ack) = (peer.isn + peer.next, peer.received);
            self.deliver(i, Flags::ACK, seq, ack, 0x0fff, options, 0);
            return;
        }
        let next = self.world.sent_to - self.world.start;
        let offset = next.saturating_add_signed(self.input.near().into()) % (1 << 32);
        let ssn = self.world.peers[i]
            .next
            .wrapping_add_signed(self.input.near());
        let len = self.length();
        self.lie();
        let declared = if how & 4 == 0 { len } else { 0 };
        let option = self.mapping(
            ssn,
            offset,
            declared,
            shape & 0x18 == 0x18,
            shape,
            how & 8 != 0,
        );
        let start = self.world.peers[i].next;
        self.world.peers[i].next += u32::try_from(len).expect("short");
        self.send_data(i, start, len, Some(option), shape);
    }
}
