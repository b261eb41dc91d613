//! Option areas of outgoing segments.
//!
//! Data segments have one layout per subflow, so that a frame can be sent again in place:
//! timestamps (12 bytes) if negotiated, then 28 bytes for a DSS with both numbers in 8-byte
//! form, padded with NOPs where less is needed. Everything else travels on pure ACKs.

use crate::tcp::SynFields;
use crate::wire::mptcp::{DataAck, Dss, DssMapping, MptcpOption};
use crate::wire::tcp_options::{FastOpenCookie, OptionsBuf, SackBlock, Timestamps};

/// Timestamps with their NOPs.
pub(crate) const TIMESTAMPS_BYTES: usize = 12;
/// A DSS with 8-byte DATA_ACK and DSN, SSN, length and checksum or its NOPs.
pub(crate) const DSS_BYTES: usize = 28;

/// Longest Fast Open cookie beside everything else in a SYN.
const COOKIE_WITH_TIMESTAMPS_MAX: usize = 14;

/// Options of a SYN or SYN/ACK. 20 bytes at most, plus the MPTCP option and Fast Open cookie.
pub(crate) fn syn(
    fields: &SynFields,
    mptcp: Option<&MptcpOption>,
    fast_open: Option<&FastOpenCookie>,
) -> OptionsBuf {
    let mut out = OptionsBuf::new();
    let long = fast_open.is_some_and(|c| c.as_slice().len() > COOKIE_WITH_TIMESTAMPS_MAX);
    // 4 + 2 + 10 + 4 bytes and a MP_JOIN SYN/ACK of 16 make 36: nothing can overflow.
    let written = out
        .mss(fields.mss)
        .and_then(|()| {
            if fields.sack_permitted {
                out.sack_permitted()?;
            }
            if let Some(t) = fields.timestamps.filter(|_| !long) {
                out.timestamps(t)?;
            }
            if let Some(shift) = fields.window_scale {
                out.window_scale(shift)?;
            }
            Ok(())
        })
        .and_then(|()| mptcp.map_or(Ok(()), |option| out.mptcp(option)))
        .and_then(|()| fast_open.map_or(Ok(()), |cookie| out.fast_open(cookie)));
    debug_assert!(written.is_ok(), "SYN options overflow");
    out
}

/// Options of a data segment: exactly `len` bytes.
pub(crate) fn data(
    timestamps: Option<Timestamps>,
    mptcp: Option<&MptcpOption>,
    len: usize,
) -> OptionsBuf {
    let mut out = OptionsBuf::new();
    let written = timestamps
        .map_or(Ok(()), |t| out.timestamps(t))
        .and_then(|()| mptcp.map_or(Ok(()), |option| out.mptcp(option)))
        .and_then(|()| out.pad_to(len));
    debug_assert!(written.is_ok(), "data options overflow");
    out
}

/// What one pure ACK carries; parts that do not fit are left out, last first.
#[derive(Debug, Default)]
pub(crate) struct AckOptions<'a> {
    /// Timestamps, if negotiated.
    pub(crate) timestamps: Option<Timestamps>,
    /// The option that this ACK is sent for.
    pub(crate) signal: Option<MptcpOption>,
    /// The DSS, usually a DATA_ACK.
    pub(crate) dss: Option<MptcpOption>,
    /// SACK blocks.
    pub(crate) sack: &'a [SackBlock],
    /// The window option.
    pub(crate) window: Option<MptcpOption>,
}

/// A laid-out [`AckOptions`].
#[derive(Debug)]
pub(crate) struct AckLayout {
    /// The area.
    pub(crate) options: OptionsBuf,
    /// The signal is in it, if there was one.
    pub(crate) signal_fits: bool,
    /// The DSS is in it, if there was one.
    pub(crate) dss_fits: bool,
    /// The window option is in it.
    pub(crate) window_fits: bool,
}

impl AckOptions<'_> {
    /// Lays the options out.
    pub(crate) fn build(&self) -> AckLayout {
        let mut out = OptionsBuf::new();
        let mut fits = true;
        if let Some(t) = self.timestamps {
            // Never without timestamps: RFC 7323 §3.2 lets the peer drop such segments.
            // An ADD_ADDR for IPv6 with a port takes 30 bytes; there it is that or
            // nothing, and Linux peers accept it.
            let too_long = |option: &MptcpOption| option.encoded_len() > 40 - TIMESTAMPS_BYTES;
            if !self.signal.as_ref().is_some_and(too_long) {
                fits &= out.timestamps(t).is_ok();
            }
        }
        if let Some(signal) = &self.signal {
            fits &= out.mptcp(signal).is_ok();
        }
        // Without room it waits for the next ACK: a DATA_ACK is cumulative.
        let dss_fits = self.dss.is_none_or(|dss| out.mptcp(&dss).is_ok());
        out.sack(self.sack);
        let window_fits = self.window.is_some_and(|w| out.mptcp(&w).is_ok());
        AckLayout {
            options: out,
            signal_fits: fits,
            dss_fits,
            window_fits,
        }
    }
}

/// A DSS with an 8-byte DATA_ACK, and a mapping in 8-byte form.
pub(crate) fn dss(ack: Option<u64>, mapping: Option<DssMapping>, data_fin: bool) -> MptcpOption {
    MptcpOption::Dss(Dss {
        data_ack: ack.map(|value| DataAck { value, wide: true }),
        mapping,
        data_fin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::SeqNumber;
    use crate::wire::types::AddressId;

    const TS: Option<Timestamps> = Some(Timestamps { tsval: 1, tsecr: 2 });

    #[test]
    fn the_largest_dss_fills_its_room_exactly() {
        let mapping = DssMapping {
            dsn: 1,
            wide: true,
            ssn: 1,
            len: 9,
            checksum: Some(7),
        };
        let full = dss(Some(5), Some(mapping), true);
        assert_eq!(full.encoded_len(), DSS_BYTES);
        let padded = data(TS, Some(&dss(None, Some(mapping), false)), 40);
        assert_eq!(padded.padded_len(), 40);
        assert_eq!(data(None, None, 28).as_slice(), [1u8; 28]);
    }

    #[test]
    fn an_ack_keeps_its_signal_and_drops_what_does_not_fit() {
        let add_addr = |port| MptcpOption::AddAddr {
            echo: false,
            address_id: AddressId(1),
            addr: "fd00::1".parse().unwrap(),
            port,
            hmac: Some(1),
        };
        let blocks = [(SeqNumber(1), SeqNumber(2))];
        let mut ack = AckOptions {
            timestamps: TS,
            signal: Some(add_addr(None)),
            dss: Some(dss(Some(5), None, false)),
            sack: &blocks,
            window: None,
        };
        let out = ack.build();
        assert!(out.signal_fits && !out.dss_fits);
        assert_eq!(out.options.padded_len(), 40);
        ack.signal = Some(add_addr(Some(80)));
        let out = ack.build();
        assert!(out.signal_fits, "without timestamps");
        assert!(out.options.padded_len() <= 40);
    }
}
