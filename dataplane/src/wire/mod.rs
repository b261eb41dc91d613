//! Packets: checked views, small representations, one file per protocol.
//!
//! A *view* wraps bytes whose lengths have been checked once, so that its accessors cannot
//! fail; a *repr* is the meaning of a header as plain values, which can be written out again.
//! Parsers never panic and never allocate, whatever the bytes. [`packet::parse`] goes from a
//! frame to everything the engine wants to know about it in one call.

pub(crate) mod bytes;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod mptcp;
pub mod packet;
pub mod tcp;
pub mod tcp_options;
pub mod types;

pub use ethernet::{EthernetAddress, VlanTag, VlanTags};
pub use icmp::{IcmpError, IcmpKind};
pub use mptcp::{
    AddressIds, DataAck, Dss, DssMapping, MpCapableFlags, MptcpOption, dss_checksum,
    verify_dss_checksum,
};
pub use packet::{ChecksumVerdict, EthernetPair, Packet, ParseError, TcpPacket};
pub use tcp::{Flags, SeqNumber};
pub use tcp_options::{
    MptcpOptions, NoRoom, OptionsBuf, SackBlock, SackBlocks, TcpOptions, Timestamps,
};
pub use types::{AddressId, DataSeq, FourTuple, Key, Token};
