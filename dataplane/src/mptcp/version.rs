//! The two versions of the protocol: 0 (RFC 6824) and 1 (RFC 8684).
//!
//! A connection has one version from its SYN on and keeps it: the initiator offers one, the
//! responder answers with the same or not at all (RFC 8684 §3.1: never a higher one). The
//! state machine is the same for both; where they differ, the code asks a question of this
//! file, named after what differs.
//!
//! Version 0 is what hosts spoke before 2020. It authenticates joins only: an ADD_ADDR of
//! version 0 is believed from anybody who can put a segment into a subflow's window, which is
//! why it has to be allowed by configuration.

use serde::{Deserialize, Serialize};

use super::config::{ChecksumPolicy, MptcpConfig};
use crate::wire::mptcp::{Dss, DssMapping, MpCapableFlags, MptcpOption};
use crate::wire::packet::TcpPacket;
use crate::wire::types::Key;

/// A version of MPTCP.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// RFC 6824.
    V0,
    /// RFC 8684.
    #[default]
    V1,
}

impl Version {
    /// As MP_CAPABLE has it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }

    /// The key of MP_CAPABLE's sender already stands on its SYN (RFC 6824 §3.1).
    pub(crate) const fn has_key_on_syn(self) -> bool {
        matches!(self, Self::V0)
    }

    /// MP_CAPABLE may stand on the initiator's first data, with their mapping (RFC 8684 §3.1).
    /// In version 0 it is on a pure ACK before them, and they have a DSS (RFC 6824 §3.6).
    pub(crate) const fn has_keys_with_data(self) -> bool {
        matches!(self, Self::V1)
    }

    /// Flag C of MP_CAPABLE keeps joins off the initial address (RFC 8684 §3.1). In version 0
    /// the bit belongs to the crypto algorithms.
    pub(crate) const fn has_flag_c(self) -> bool {
        matches!(self, Self::V1)
    }

    /// ADD_ADDR is authenticated and echoed (RFC 8684 §3.4.1).
    pub(crate) const fn authenticates_addresses(self) -> bool {
        matches!(self, Self::V1)
    }

    /// A RST may carry MP_TCPRST and MP_FASTCLOSE (RFC 8684 §3.5, §3.6).
    pub(crate) const fn explains_resets(self) -> bool {
        matches!(self, Self::V1)
    }

    /// Subtype 0xf is for private use (RFC 8684 §7.2).
    pub(crate) const fn has_private_subtype(self) -> bool {
        matches!(self, Self::V1)
    }

    /// MP_PRIO may name an address instead of the subflow it arrives on (RFC 6824 §3.3.8).
    pub(crate) const fn prio_names_addresses(self) -> bool {
        matches!(self, Self::V0)
    }

    /// The mapping of a DSS as this version reads it, `checksum` saying whether checksums were
    /// negotiated. `Err`: the subflow is broken and must be reset.
    ///
    /// A checksum that is missing breaks the subflow in both versions; one that nobody asked
    /// for is ignored in version 0 (RFC 6824 §3.3.1) and breaks it in version 1 (RFC 8684
    /// §3.3.1). An infinite mapping is exempt: it means that checks have ended.
    pub(crate) fn read_mapping(
        self,
        dss: &Dss,
        checksum: bool,
    ) -> Result<Option<DssMapping>, ChecksumFlagViolated> {
        let Some(mut mapping) = dss.mapping else {
            return Ok(None);
        };
        if mapping.len == 0 {
            return Ok(Some(mapping));
        }
        if self == Self::V0 && !checksum {
            mapping.checksum = None;
        }
        if mapping.checksum.is_some() != checksum {
            return Err(ChecksumFlagViolated);
        }
        Ok(Some(mapping))
    }
}

/// A DSS with or without checksum, against what was negotiated.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChecksumFlagViolated;

/// A MP_CAPABLE that offers what is spoken here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) version: Version,
    /// The sender's key, where this version has it in this place.
    pub(crate) key: Option<Key>,
    pub(crate) flags: MpCapableFlags,
}

/// What a SYN's MP_CAPABLE comes to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum SynOffer {
    /// Answered with the same version.
    Acceptable(Offer),
    /// None that is spoken here: plain TCP.
    None,
    /// The SYN must not be answered at all.
    Ignore,
}

/// The form of the first MP_CAPABLE without the receiver's key.
fn capable(packet: &TcpPacket) -> Option<(u8, Option<Key>, MpCapableFlags)> {
    if packet.options.md5 {
        return None;
    }
    packet
        .options
        .mptcp
        .iter()
        .find_map(|option| match *option {
            MptcpOption::MpCapable {
                version,
                flags,
                sender_key,
                receiver_key: None,
                ..
            } => Some((version, sender_key, flags)),
            _ => None,
        })
}

/// Judges the MP_CAPABLE of a SYN. A version above ours is answered with ours (RFC 8684
/// §3.1); version 0 only where it is allowed.
pub(crate) fn offer_of_syn(packet: &TcpPacket, config: &MptcpConfig) -> SynOffer {
    let Some((number, key, flags)) = capable(packet).filter(|_| config.enabled) else {
        return SynOffer::None;
    };
    let version = match number {
        0 if config.allow_v0 => Version::V0,
        0 => return SynOffer::None,
        _ => Version::V1,
    };
    if flags.contains(MpCapableFlags::EXTENSIBILITY) {
        // RFC 6824 §3.1: silently ignored, the sender is expected to retry without the flag.
        // RFC 8684 §3.1: only the option is.
        return match version {
            Version::V0 => SynOffer::Ignore,
            Version::V1 => SynOffer::None,
        };
    }
    let offer = Offer {
        version,
        key,
        flags,
    };
    if key.is_some() == version.has_key_on_syn() && acceptable_flags(flags, config) {
        SynOffer::Acceptable(offer)
    } else {
        SynOffer::None
    }
}

/// Judges the MP_CAPABLE of a SYN/ACK, which must be of the version that was offered.
pub(crate) fn offer_of_synack(
    packet: &TcpPacket,
    config: &MptcpConfig,
    offered: Version,
) -> Option<Offer> {
    let (number, key, flags) = capable(packet)?;
    let acceptable = number == offered.number()
        && key.is_some()
        && !flags.contains(MpCapableFlags::EXTENSIBILITY)
        && acceptable_flags(flags, config);
    acceptable.then_some(Offer {
        version: offered,
        key,
        flags,
    })
}

/// Flag H names the HMAC of the version (SHA-1 or SHA-256); checksums are not required
/// against our will.
fn acceptable_flags(flags: MpCapableFlags, config: &MptcpConfig) -> bool {
    flags.contains(MpCapableFlags::HMAC_SHA256)
        && (config.checksum != ChecksumPolicy::Never || !flags.contains(MpCapableFlags::CHECKSUM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dss(len: u16, checksum: Option<u16>) -> Dss {
        Dss {
            mapping: Some(DssMapping {
                dsn: 1,
                wide: true,
                ssn: 1,
                len,
                checksum,
            }),
            ..Dss::default()
        }
    }

    #[test]
    fn checksums_are_judged_as_each_version_says() {
        let read = |version: Version, negotiated, present: Option<u16>| {
            let mapping = version.read_mapping(&dss(9, present), negotiated);
            mapping.map(|m| m.unwrap().checksum)
        };
        for version in [Version::V0, Version::V1] {
            assert_eq!(read(version, true, Some(7)), Ok(Some(7)));
            assert_eq!(read(version, false, None), Ok(None));
            assert_eq!(read(version, true, None), Err(ChecksumFlagViolated));
        }
        assert_eq!(read(Version::V0, false, Some(7)), Ok(None), "ignored");
        assert_eq!(read(Version::V1, false, Some(7)), Err(ChecksumFlagViolated));
    }

    #[test]
    fn an_infinite_mapping_needs_no_checksum() {
        for version in [Version::V0, Version::V1] {
            for checksum in [None, Some(0)] {
                let mapping = version.read_mapping(&dss(0, checksum), true);
                assert_eq!(mapping.map(|m| m.is_some()), Ok(true));
            }
        }
        let none = Version::V0.read_mapping(&Dss::default(), true);
        assert_eq!(none, Ok(None));
    }
}
