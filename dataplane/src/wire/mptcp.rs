//! MPTCP options (RFC 8684 §3; TCP option kind 30).
//!
//! [`MptcpOption::parse`] decides the form of an option by its subtype and length, as RFC 8684
//! lays them out, and RFC 6824 (version 0) where it differs: no length and flags mean one thing
//! in one version and another in the other. Which form is acceptable in which version and state
//! is the connection's business.
//! Numbers keep the width they had on the wire (`wide`), because a 64-bit DSN must be answered
//! by a 64-bit DATA_ACK (§3.3.2).

mod codec;
#[cfg(test)]
pub(crate) mod tests;

use core::net::IpAddr;

use super::types::{AddressId, Key, Token};
use crate::checksum::Sum;

/// TCP option kind of MPTCP.
pub const KIND: u8 = 30;

/// MPTCP option subtypes (RFC 8684 §7.2).
pub mod subtype {
    /// Multipath capable.
    pub const MP_CAPABLE: u8 = 0x0;
    /// Join a connection.
    pub const MP_JOIN: u8 = 0x1;
    /// Data sequence signal.
    pub const DSS: u8 = 0x2;
    /// Announce an address.
    pub const ADD_ADDR: u8 = 0x3;
    /// Withdraw addresses.
    pub const REMOVE_ADDR: u8 = 0x4;
    /// Change a subflow's priority.
    pub const MP_PRIO: u8 = 0x5;
    /// Checksum failure, fallback.
    pub const MP_FAIL: u8 = 0x6;
    /// Abort the connection.
    pub const MP_FASTCLOSE: u8 = 0x7;
    /// Why a subflow was reset.
    pub const MP_TCPRST: u8 = 0x8;
    /// For private use.
    pub const PRIVATE: u8 = 0xf;
}

/// The flags of MP_CAPABLE (RFC 8684 §3.1).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct MpCapableFlags(pub u8);

impl MpCapableFlags {
    /// A: DSS checksums are required.
    pub const CHECKSUM: Self = Self(0x80);
    /// B: an extension nobody has defined; its sender is not understood.
    pub const EXTENSIBILITY: Self = Self(0x40);
    /// C: no more subflows to the source address and port of this option.
    pub const NO_MORE_SUBFLOWS: Self = Self(0x20);
    /// H: HMAC-SHA256; in version 0 (RFC 6824 §3.1) HMAC-SHA1.
    pub const HMAC_SHA256: Self = Self(0x01);
    /// D to H: the crypto algorithms.
    pub const CRYPTO: Self = Self(0x1f);

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOr for MpCapableFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// A DATA_ACK as it stood on the wire.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct DataAck {
    /// The number; only its low 32 bits are meaningful unless `wide`.
    pub value: u64,
    /// 8 bytes on the wire, not 4.
    pub wide: bool,
}

/// A mapping of subflow sequence space to data sequence space.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct DssMapping {
    /// Data sequence number; only its low 32 bits are meaningful unless `wide`.
    pub dsn: u64,
    /// The DSN is 8 bytes on the wire, not 4.
    pub wide: bool,
    /// Subflow sequence number, relative to the subflow's ISN.
    pub ssn: u32,
    /// Data-level length, the DATA_FIN counted. Zero: an infinite mapping (§3.7).
    pub len: u16,
    /// The DSS checksum.
    pub checksum: Option<u16>,
}

/// The data sequence signal (RFC 8684 §3.3).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Dss {
    /// DATA_ACK (flag A).
    pub data_ack: Option<DataAck>,
    /// Mapping (flag M).
    pub mapping: Option<DssMapping>,
    /// The mapping ends with the DATA_FIN (flag F).
    pub data_fin: bool,
}

/// The addresses of a REMOVE_ADDR. As many as can stand in a TCP header.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct AddressIds {
    ids: [u8; Self::MAX],
    len: u8,
}

impl AddressIds {
    /// 40 bytes of options less kind, length and subtype.
    pub const MAX: usize = 37;

    /// Copies `ids`; `None` if they are too many, or none: an empty list cannot be sent.
    #[must_use]
    pub fn new(ids: &[AddressId]) -> Option<Self> {
        if ids.is_empty() || ids.len() > Self::MAX {
            return None;
        }
        let mut out = Self {
            ids: [0; Self::MAX],
            len: ids.len() as u8,
        };
        for (to, from) in out.ids.iter_mut().zip(ids) {
            *to = from.0;
        }
        Some(out)
    }

    /// Just this one.
    #[must_use]
    pub const fn single(id: AddressId) -> Self {
        let mut ids = [0; Self::MAX];
        ids[0] = id.0;
        Self { ids, len: 1 }
    }

    /// The IDs in the order of the wire.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = AddressId> + '_ {
        self.as_bytes().iter().map(|id| AddressId(*id))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.ids[..usize::from(self.len)]
    }
}

impl core::fmt::Debug for AddressIds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.as_bytes()).finish()
    }
}

/// Reasons of MP_TCPRST (RFC 8684 §3.6).
pub mod reset_reason {
    /// Nothing more specific.
    pub const UNSPECIFIED: u8 = 0;
    /// The peer violated MPTCP.
    pub const MPTCP_SPECIFIC: u8 = 1;
    /// Lack of resources.
    pub const LACK_OF_RESOURCES: u8 = 2;
    /// Administratively prohibited.
    pub const PROHIBITED: u8 = 3;
    /// Too much outstanding data.
    pub const TOO_MUCH_DATA: u8 = 4;
    /// Unacceptable performance.
    pub const BAD_PERFORMANCE: u8 = 5;
    /// A middlebox interferes.
    pub const MIDDLEBOX: u8 = 6;
}

/// The T flag of MP_TCPRST: the condition is transient (RFC 8684 §3.6).
pub const RESET_TRANSIENT: u8 = 0x01;

/// One MPTCP option.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum MptcpOption {
    /// MP_CAPABLE (§3.1). What is present decides the form: nothing (SYN), the sender's key
    /// (SYN/ACK), both keys (ACK), a data length, a checksum. A later field without the ones
    /// before it is not written.
    MpCapable {
        /// Protocol version.
        version: u8,
        /// Flags A to H.
        flags: MpCapableFlags,
        /// Key of the option's sender.
        sender_key: Option<Key>,
        /// Key of its receiver.
        receiver_key: Option<Key>,
        /// Data-level length of the data in this segment.
        data_len: Option<u16>,
        /// Checksum of that data.
        checksum: Option<u16>,
    },
    /// MP_JOIN on a SYN (§3.2).
    MpJoinSyn {
        /// B: use this subflow only when no other is left.
        backup: bool,
        /// ID of the sender's address.
        address_id: AddressId,
        /// Which connection to join.
        token: Token,
        /// Random number of the sender.
        nonce: u32,
    },
    /// MP_JOIN on a SYN/ACK (§3.2).
    MpJoinSynAck {
        /// B: use this subflow only when no other is left.
        backup: bool,
        /// ID of the sender's address.
        address_id: AddressId,
        /// Leftmost 64 bits of the HMAC.
        hmac: u64,
        /// Random number of the sender.
        nonce: u32,
    },
    /// MP_JOIN on the third ACK (§3.2).
    MpJoinAck {
        /// Leftmost 160 bits of the HMAC.
        hmac: [u8; 20],
    },
    /// DSS (§3.3).
    Dss(Dss),
    /// ADD_ADDR (§3.4.1). Without echo and HMAC it is that of version 0 (RFC 6824 §3.4.1),
    /// whose flags say the family.
    AddAddr {
        /// E: this repeats an announcement to acknowledge it.
        echo: bool,
        /// ID of the address.
        address_id: AddressId,
        /// The address.
        addr: IpAddr,
        /// Port, if not that of the connection.
        port: Option<u16>,
        /// Rightmost 64 bits of the HMAC; an echo has none, nor has version 0.
        hmac: Option<u64>,
    },
    /// REMOVE_ADDR (§3.4.2).
    RemoveAddr {
        /// The addresses that are gone.
        ids: AddressIds,
    },
    /// MP_PRIO (§3.3.8).
    MpPrio {
        /// B: use this subflow only when no other is left.
        backup: bool,
        /// Version 0 (RFC 6824 §3.3.8): this address of the sender is meant, whatever subflow
        /// the option arrives on.
        address_id: Option<AddressId>,
    },
    /// MP_FAIL (§3.7).
    MpFail {
        /// Start of the mapping whose checksum failed.
        dsn: u64,
    },
    /// MP_FASTCLOSE (§3.5).
    FastClose {
        /// Key of the option's receiver.
        receiver_key: Key,
    },
    /// MP_TCPRST (§3.6).
    TcpRst {
        /// U, V, W and T ([`RESET_TRANSIENT`]).
        flags: u8,
        /// See [`reset_reason`].
        reason: u8,
    },
    /// The window of the connection, between peers of this implementation (private use).
    Window {
        /// H: the receiver's own such option has arrived.
        heard: bool,
        /// The low 32 bits of the first data sequence number that is not taken.
        edge: u32,
    },
    /// A subtype that RFC 8684 does not define.
    Unknown {
        /// The subtype.
        subtype: u8,
        /// Length of the option.
        len: u8,
    },
    /// A known subtype of impossible length or content.
    Malformed {
        /// The subtype; 0xff if the option is too short to have one.
        subtype: u8,
        /// Length of the option.
        len: u8,
    },
}

impl MptcpOption {
    /// The subtype it has on the wire.
    #[must_use]
    pub const fn subtype(&self) -> u8 {
        match self {
            Self::MpCapable { .. } => subtype::MP_CAPABLE,
            Self::MpJoinSyn { .. } | Self::MpJoinSynAck { .. } | Self::MpJoinAck { .. } => {
                subtype::MP_JOIN
            }
            Self::Dss(_) => subtype::DSS,
            Self::AddAddr { .. } => subtype::ADD_ADDR,
            Self::RemoveAddr { .. } => subtype::REMOVE_ADDR,
            Self::MpPrio { .. } => subtype::MP_PRIO,
            Self::MpFail { .. } => subtype::MP_FAIL,
            Self::FastClose { .. } => subtype::MP_FASTCLOSE,
            Self::TcpRst { .. } => subtype::MP_TCPRST,
            Self::Window { .. } => subtype::PRIVATE,
            Self::Unknown { subtype, .. } | Self::Malformed { subtype, .. } => *subtype,
        }
    }
}

/// The ones-complement sum that the DSS checksum covers (RFC 8684 §3.3.1): a pseudo-header of
/// the full 64-bit DSN, the relative SSN, the length and zeros, then the payload.
#[must_use]
pub const fn dss_sum(dsn: u64, ssn: u32, len: u16, payload: Sum) -> Sum {
    payload.add_u64(dsn).add_u32(ssn).add_u16(len)
}

/// The DSS checksum of a mapping. `payload` is the sum of its data, a DATA_FIN having none.
#[must_use]
pub const fn dss_checksum(dsn: u64, ssn: u32, len: u16, payload: Sum) -> u16 {
    dss_sum(dsn, ssn, len, payload).finish()
}

/// Whether `checksum` is right for a mapping and the sum of its data.
#[must_use]
pub const fn verify_dss_checksum(
    dsn: u64,
    ssn: u32,
    len: u16,
    payload: Sum,
    checksum: u16,
) -> bool {
    dss_sum(dsn, ssn, len, payload).matches(checksum)
}
