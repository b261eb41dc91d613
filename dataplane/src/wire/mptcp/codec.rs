//! Bytes to [`MptcpOption`] and back.

use core::net::IpAddr;

use super::{AddressIds, DataAck, Dss, DssMapping, KIND, MpCapableFlags, MptcpOption, subtype};
use crate::wire::bytes::{array_at, ipv4_at, ipv6_at, put, u16_at, u32_at, u64_at};
use crate::wire::types::{AddressId, Key, Token};

/// Flags of the DSS (RFC 8684 §3.3, figure 9).
mod dss_flag {
    pub(super) const DATA_ACK: u8 = 0x01;
    pub(super) const DATA_ACK_WIDE: u8 = 0x02;
    pub(super) const MAPPING: u8 = 0x04;
    pub(super) const DSN_WIDE: u8 = 0x08;
    pub(super) const DATA_FIN: u8 = 0x10;
}

/// The B flag of MP_JOIN and MP_PRIO.
const BACKUP: u8 = 0x01;
/// Tells our private option from those of others: "W".
const WINDOW_MARK: u8 = 0x57;
/// Its H flag.
const HEARD: u8 = 0x01;
/// The E flag of ADD_ADDR.
const ECHO: u8 = 0x01;
/// IPVer of an ADD_ADDR of version 0 (RFC 6824 §3.4.1). Its lengths 8 and 10, or 20 and 22, are
/// those of an echo of version 1 only, which has the lowest bit set.
const IP_VERSION_4: u8 = 4;
const IP_VERSION_6: u8 = 6;

/// What stands beside the subtype of an ADD_ADDR.
const fn add_addr_flags(echo: bool, hmac: bool, v4: bool) -> u8 {
    match (echo, hmac, v4) {
        (true, ..) => ECHO,
        (false, true, _) => 0,
        (false, false, true) => IP_VERSION_4,
        (false, false, false) => IP_VERSION_6,
    }
}

impl MptcpOption {
    /// Reads one option: all of its bytes, kind and length included.
    #[must_use]
    pub fn parse(option: &[u8]) -> Self {
        let len = u8::try_from(option.len()).unwrap_or(u8::MAX);
        let [KIND, _, third, ..] = *option else {
            return Self::Malformed { subtype: 0xff, len };
        };
        let subtype = third >> 4;
        let low = third & 0x0f;
        let parsed = match subtype {
            subtype::MP_CAPABLE => parse_capable(option, low),
            subtype::MP_JOIN => parse_join(option, low),
            subtype::DSS => parse_dss(option),
            subtype::ADD_ADDR => parse_add_addr(option, low),
            subtype::REMOVE_ADDR => parse_remove_addr(option),
            subtype::MP_PRIO => matches!(len, 3 | 4).then(|| Self::MpPrio {
                backup: low & BACKUP != 0,
                address_id: option.get(3).map(|id| AddressId(*id)),
            }),
            subtype::MP_FAIL => (len == 12).then(|| Self::MpFail {
                dsn: u64_at(option, 4),
            }),
            subtype::MP_FASTCLOSE => (len == 12).then(|| Self::FastClose {
                receiver_key: Key(u64_at(option, 4)),
            }),
            subtype::MP_TCPRST => (len == 4).then(|| Self::TcpRst {
                flags: low,
                reason: option[3],
            }),
            subtype::PRIVATE if len == 8 && option[3] == WINDOW_MARK => Some(Self::Window {
                heard: low & HEARD != 0,
                edge: u32_at(option, 4),
            }),
            _ => Some(Self::Unknown { subtype, len }),
        };
        parsed.unwrap_or(Self::Malformed { subtype, len })
    }

    /// Bytes that [`MptcpOption::emit`] writes. Zero for what was not understood: it cannot be
    /// repeated.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::MpCapable {
                sender_key,
                receiver_key,
                data_len,
                checksum,
                ..
            } => match (sender_key, receiver_key, data_len, checksum) {
                (None, ..) => 4,
                (_, None, ..) => 12,
                (_, _, None, _) => 20,
                (_, _, _, None) => 22,
                _ => 24,
            },
            Self::MpJoinSyn { .. } | Self::MpFail { .. } | Self::FastClose { .. } => 12,
            Self::MpJoinSynAck { .. } => 16,
            Self::MpJoinAck { .. } => 24,
            Self::Dss(dss) => dss.encoded_len(),
            Self::AddAddr {
                addr, port, hmac, ..
            } => {
                let addr = if addr.is_ipv4() { 4 } else { 16 };
                4 + addr + if port.is_some() { 2 } else { 0 } + if hmac.is_some() { 8 } else { 0 }
            }
            Self::RemoveAddr { ids } => 3 + ids.as_bytes().len(),
            Self::MpPrio { address_id, .. } => 3 + usize::from(address_id.is_some()),
            Self::TcpRst { .. } => 4,
            Self::Window { .. } => 8,
            Self::Unknown { .. } | Self::Malformed { .. } => 0,
        }
    }

    /// Writes the option to the front of `out` and returns its length,
    /// [`MptcpOption::encoded_len`].
    ///
    /// # Panics
    ///
    /// If `out` is shorter than that.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let len = self.encoded_len();
        if len == 0 {
            return 0;
        }
        let out = &mut out[..len];
        // At most 40, see the lengths above.
        put(out, 0, &[KIND, len as u8, self.subtype() << 4]);
        match self {
            Self::MpCapable {
                version,
                flags,
                sender_key,
                receiver_key,
                data_len,
                checksum,
            } => {
                out[2] |= version & 0x0f;
                out[3] = flags.0;
                // The length knows which fields are there; later ones without earlier ones
                // are beyond it.
                if let Some(key) = sender_key {
                    put(out, 4, &key.0.to_be_bytes());
                }
                if len >= 20
                    && let Some(key) = receiver_key
                {
                    put(out, 12, &key.0.to_be_bytes());
                }
                if len >= 22
                    && let Some(data_len) = data_len
                {
                    put(out, 20, &data_len.to_be_bytes());
                }
                if len >= 24
                    && let Some(checksum) = checksum
                {
                    put(out, 22, &checksum.to_be_bytes());
                }
            }
            Self::MpJoinSyn {
                backup,
                address_id,
                token,
                nonce,
            } => {
                out[2] |= u8::from(*backup) * BACKUP;
                out[3] = address_id.0;
                put(out, 4, &token.0.to_be_bytes());
                put(out, 8, &nonce.to_be_bytes());
            }
            Self::MpJoinSynAck {
                backup,
                address_id,
                hmac,
                nonce,
            } => {
                out[2] |= u8::from(*backup) * BACKUP;
                out[3] = address_id.0;
                put(out, 4, &hmac.to_be_bytes());
                put(out, 12, &nonce.to_be_bytes());
            }
            Self::MpJoinAck { hmac } => {
                out[3] = 0;
                put(out, 4, hmac);
            }
            Self::Dss(dss) => dss.emit(out),
            Self::AddAddr {
                echo,
                address_id,
                addr,
                port,
                hmac,
            } => {
                out[2] |= add_addr_flags(*echo, hmac.is_some(), addr.is_ipv4());
                out[3] = address_id.0;
                let mut at = match addr {
                    IpAddr::V4(a) => {
                        put(out, 4, &a.octets());
                        8
                    }
                    IpAddr::V6(a) => {
                        put(out, 4, &a.octets());
                        20
                    }
                };
                if let Some(port) = port {
                    put(out, at, &port.to_be_bytes());
                    at += 2;
                }
                if let Some(hmac) = hmac {
                    put(out, at, &hmac.to_be_bytes());
                }
            }
            Self::RemoveAddr { ids } => put(out, 3, ids.as_bytes()),
            Self::MpPrio { backup, address_id } => {
                out[2] |= u8::from(*backup) * BACKUP;
                if let Some(id) = address_id {
                    out[3] = id.0;
                }
            }
            Self::MpFail { dsn: number }
            | Self::FastClose {
                receiver_key: Key(number),
            } => {
                out[3] = 0;
                put(out, 4, &number.to_be_bytes());
            }
            Self::TcpRst { flags, reason } => {
                out[2] |= flags & 0x0f;
                out[3] = *reason;
            }
            Self::Window { heard, edge } => {
                out[2] |= u8::from(*heard) * HEARD;
                out[3] = WINDOW_MARK;
                put(out, 4, &edge.to_be_bytes());
            }
            Self::Unknown { .. } | Self::Malformed { .. } => {}
        }
        len
    }
}

impl Dss {
    /// Bytes of the option.
    fn encoded_len(&self) -> usize {
        let ack = self.data_ack.map_or(0, |ack| number_len(ack.wide));
        let mapping = self.mapping.map_or(0, |m| {
            number_len(m.wide) + 6 + if m.checksum.is_some() { 2 } else { 0 }
        });
        4 + ack + mapping
    }

    /// Writes flags and fields; kind, length and subtype are there.
    fn emit(&self, out: &mut [u8]) {
        let mut flags = u8::from(self.data_fin) * dss_flag::DATA_FIN;
        let mut at = 4;
        if let Some(ack) = self.data_ack {
            flags |= dss_flag::DATA_ACK | (u8::from(ack.wide) * dss_flag::DATA_ACK_WIDE);
            at += put_number(out, at, ack.value, ack.wide);
        }
        if let Some(m) = self.mapping {
            flags |= dss_flag::MAPPING | (u8::from(m.wide) * dss_flag::DSN_WIDE);
            at += put_number(out, at, m.dsn, m.wide);
            put(out, at, &m.ssn.to_be_bytes());
            put(out, at + 4, &m.len.to_be_bytes());
            if let Some(checksum) = m.checksum {
                put(out, at + 6, &checksum.to_be_bytes());
            }
        }
        out[3] = flags;
    }
}

/// Bytes of a DSN or DATA_ACK.
const fn number_len(wide: bool) -> usize {
    if wide { 8 } else { 4 }
}

/// Writes a DSN or DATA_ACK and returns its length.
fn put_number(out: &mut [u8], at: usize, value: u64, wide: bool) -> usize {
    let bytes = value.to_be_bytes();
    put(out, at, if wide { &bytes } else { &bytes[4..] });
    number_len(wide)
}

/// Reads a DSN or DATA_ACK. The caller has checked the length.
fn number_at(b: &[u8], at: usize, wide: bool) -> u64 {
    if wide {
        u64_at(b, at)
    } else {
        u64::from(u32_at(b, at))
    }
}

fn parse_capable(b: &[u8], version: u8) -> Option<MptcpOption> {
    if !matches!(b.len(), 4 | 12 | 20 | 22 | 24) {
        return None;
    }
    Some(MptcpOption::MpCapable {
        version,
        flags: MpCapableFlags(b[3]),
        sender_key: (b.len() >= 12).then(|| Key(u64_at(b, 4))),
        receiver_key: (b.len() >= 20).then(|| Key(u64_at(b, 12))),
        data_len: (b.len() >= 22).then(|| u16_at(b, 20)),
        checksum: (b.len() >= 24).then(|| u16_at(b, 22)),
    })
}

fn parse_join(b: &[u8], low: u8) -> Option<MptcpOption> {
    let backup = low & BACKUP != 0;
    match b.len() {
        12 => Some(MptcpOption::MpJoinSyn {
            backup,
            address_id: AddressId(b[3]),
            token: Token(u32_at(b, 4)),
            nonce: u32_at(b, 8),
        }),
        16 => Some(MptcpOption::MpJoinSynAck {
            backup,
            address_id: AddressId(b[3]),
            hmac: u64_at(b, 4),
            nonce: u32_at(b, 12),
        }),
        24 => Some(MptcpOption::MpJoinAck {
            hmac: array_at(b, 4),
        }),
        _ => None,
    }
}

fn parse_dss(b: &[u8]) -> Option<MptcpOption> {
    let flags = *b.get(3)?;
    let has = |flag| flags & flag != 0;
    let ack_wide = has(dss_flag::DATA_ACK_WIDE);
    let dsn_wide = has(dss_flag::DSN_WIDE);

    // The flags fix the length but for the checksum, whose presence the length tells (§3.3).
    let mapping_at = 4 + if has(dss_flag::DATA_ACK) {
        number_len(ack_wide)
    } else {
        0
    };
    let ssn_at = mapping_at + number_len(dsn_wide);
    let has_checksum = if !has(dss_flag::MAPPING) {
        if b.len() != mapping_at {
            return None;
        }
        false
    } else if b.len() == ssn_at + 6 {
        false
    } else if b.len() == ssn_at + 8 {
        true
    } else {
        return None;
    };

    Some(MptcpOption::Dss(Dss {
        data_ack: has(dss_flag::DATA_ACK).then(|| DataAck {
            value: number_at(b, 4, ack_wide),
            wide: ack_wide,
        }),
        mapping: has(dss_flag::MAPPING).then(|| DssMapping {
            dsn: number_at(b, mapping_at, dsn_wide),
            wide: dsn_wide,
            ssn: u32_at(b, ssn_at),
            len: u16_at(b, ssn_at + 4),
            checksum: has_checksum.then(|| u16_at(b, ssn_at + 6)),
        }),
        data_fin: has(dss_flag::DATA_FIN),
    }))
}

fn parse_add_addr(b: &[u8], low: u8) -> Option<MptcpOption> {
    let echo = low & ECHO != 0;
    let version0 = matches!(
        (low, b.len()),
        (IP_VERSION_4, 8 | 10) | (IP_VERSION_6, 20 | 22)
    );
    // §3.4.1: an echo has no HMAC, an announcement must have one, but in version 0. The rest
    // of the length tells the family and whether there is a port.
    let has_hmac = !echo && !version0;
    let hmac_len = if has_hmac { 8 } else { 0 };
    let (v6, has_port) = match b.len().checked_sub(hmac_len)? {
        8 => (false, false),
        10 => (false, true),
        20 => (true, false),
        22 => (true, true),
        _ => return None,
    };
    let port_at = if v6 { 20 } else { 8 };
    Some(MptcpOption::AddAddr {
        echo,
        address_id: AddressId(b[3]),
        addr: if v6 {
            IpAddr::V6(ipv6_at(b, 4))
        } else {
            IpAddr::V4(ipv4_at(b, 4))
        },
        port: has_port.then(|| u16_at(b, port_at)),
        hmac: has_hmac.then(|| u64_at(b, b.len() - 8)),
    })
}

fn parse_remove_addr(b: &[u8]) -> Option<MptcpOption> {
    let list = &b[3..];
    if list.is_empty() || list.len() > AddressIds::MAX {
        return None;
    }
    let mut ids = [0; AddressIds::MAX];
    ids[..list.len()].copy_from_slice(list);
    Some(MptcpOption::RemoveAddr {
        ids: AddressIds {
            ids,
            len: list.len() as u8,
        },
    })
}
