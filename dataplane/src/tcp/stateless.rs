//! A passive open that kept nothing between the SYN and the ACK of the SYN/ACK (SYN cookies,
//! RFC 4987 §3.6).
//!
//! What the SYN said is either in the cookie or in the timestamp that the peer echoes; the
//! rest is lost: window scale and SACK of a peer without timestamps, ECN always.

use super::segment::SynFields;
use super::{SegmentIn, State, Tcp, TcpConfig};
use crate::time::Instant;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::{TcpOptions, Timestamps};

/// What survives of a SYN's options.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct SynMemory {
    /// The peer's window shift, if it offered one.
    pub window_scale: Option<u8>,
    /// The peer permits SACK.
    pub sack_permitted: bool,
}

/// Low bits of a timestamp that hold a [`SynMemory`]: four for the shift, one for SACK, one
/// spare (the layout of Linux).
const MEMORY_BITS: u32 = 6;
const MEMORY_MASK: u32 = (1 << MEMORY_BITS) - 1;
/// A shift is 14 at the most (RFC 7323 §2.3).
const NO_SHIFT: u32 = 15;
const SACK_BIT: u32 = 1 << 4;

impl SynMemory {
    /// What of a SYN's options is agreed on and can be remembered.
    #[must_use]
    pub fn of(config: &TcpConfig, options: &TcpOptions) -> Self {
        if !config.timestamps || options.timestamps.is_none() {
            return Self::default();
        }
        let shift = options.window_scale.filter(|_| config.window_scale);
        Self {
            window_scale: shift.map(|shift| shift.min(super::SHIFT_MAX)),
            sack_permitted: config.sack && options.sack_permitted,
        }
    }

    /// As bits of a timestamp.
    #[must_use]
    pub fn bits(self) -> u8 {
        let shift = self.window_scale.map_or(NO_SHIFT, u32::from);
        let sack = if self.sack_permitted { SACK_BIT } else { 0 };
        u8::try_from(shift | sack).unwrap_or(0)
    }

    /// From the timestamp that the peer echoes.
    #[must_use]
    pub fn from_echo(tsecr: u32) -> Self {
        let shift = u8::try_from(tsecr & 0xf).unwrap_or(0);
        Self {
            window_scale: (shift <= super::SHIFT_MAX).then_some(shift),
            sack_permitted: tsecr & SACK_BIT != 0,
        }
    }

    /// A timestamp no later than `now` (a clock must not run backwards for the peer) with these
    /// bits in it.
    fn timestamp(self, now: u32) -> u32 {
        let value = now & !MEMORY_MASK | u32::from(self.bits());
        if value.wrapping_sub(now).cast_signed() > 0 {
            value.wrapping_sub(MEMORY_MASK + 1)
        } else {
            value
        }
    }
}

/// Header fields and options of a SYN/ACK that is sent without keeping a connection.
#[must_use]
pub fn stateless_syn_ack(
    config: &TcpConfig,
    now: Instant,
    ts_offset: u32,
    syn: &SegmentIn<'_>,
) -> SynFields {
    let memory = SynMemory::of(config, syn.options);
    let timestamps = syn.options.timestamps.filter(|_| config.timestamps);
    let clock = (now.as_millis() as u32).wrapping_add(ts_offset);
    SynFields {
        ack: Some(syn.seq + 1),
        flags: Flags::SYN | Flags::ACK,
        window: u16::try_from(config.recv_buffer_max).unwrap_or(u16::MAX),
        mss: config.mss,
        window_scale: memory.window_scale.map(|_| config.receive_shift()),
        sack_permitted: memory.sack_permitted,
        timestamps: timestamps.map(|peer| Timestamps {
            tsval: memory.timestamp(clock),
            tsecr: peer.tsval,
        }),
    }
}

impl Tcp {
    /// A passive open whose SYN/ACK, numbered `iss`, is being acknowledged. `syn` is the SYN as
    /// it is remembered; the ACK comes next, by [`Tcp::on_segment`].
    #[must_use]
    pub fn resume(
        config: TcpConfig,
        now: Instant,
        iss: SeqNumber,
        ts_offset: u32,
        syn: &SegmentIn<'_>,
    ) -> Self {
        let mut tcp = Self::new(config, now, iss, ts_offset, State::SynReceived);
        tcp.take_syn(now, syn);
        // The SYN/ACK has advertised a window; when it left is not known, so the handshake
        // measures nothing, as if it had been repeated.
        let _ = tcp.syn_fields(now);
        tcp.timers.handshake_attempt = 1;
        tcp.timers.start_handshake(now);
        tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Chain;
    use crate::counters::Counters;

    fn options(timestamps: bool, shift: Option<u8>, sack: bool) -> TcpOptions {
        TcpOptions {
            mss: Some(1460),
            window_scale: shift,
            sack_permitted: sack,
            timestamps: timestamps.then_some(Timestamps {
                tsval: 77_000,
                tsecr: 0,
            }),
            ..TcpOptions::default()
        }
    }

    fn segment(options: &TcpOptions, seq: u32, flags: Flags) -> SegmentIn<'_> {
        SegmentIn {
            seq: SeqNumber(seq),
            ack: SeqNumber(0),
            flags,
            window: 40_000,
            urgent: 0,
            options,
            payload_len: 0,
            ce: false,
            mptcp_signal: false,
            segments: 1,
        }
    }

    #[test]
    fn options_survive_in_the_timestamp_or_are_not_agreed_on() {
        let config = TcpConfig::default();
        for shift in (0..=14).map(Some).chain([None]) {
            for sack in [false, true] {
                let memory = SynMemory::of(&config, &options(true, shift, sack));
                assert_eq!((memory.window_scale, memory.sack_permitted), (shift, sack));
                for now in [0, 1, 63, 64, 1000, u32::MAX] {
                    let sent = memory.timestamp(now);
                    assert_eq!(SynMemory::from_echo(sent), memory);
                    assert!(now.wrapping_sub(sent) < 64, "{now}: {sent}");
                }
                let without = SynMemory::of(&config, &options(false, shift, sack));
                assert_eq!(without, SynMemory::default());
            }
        }
    }

    /// The stateless SYN/ACK says what a connection would have said, and the connection made
    /// from the ACK goes on where one that had been kept would.
    #[test]
    fn a_resumed_connection_is_one_that_was_kept() {
        let now = Instant::from_millis(5_000);
        for (timestamps, shift, sack) in [
            (true, Some(9), true),
            (true, None, false),
            (true, Some(0), false),
            (false, None, false),
        ] {
            let offered = options(timestamps, shift, sack);
            let syn = segment(&offered, 1000, Flags::SYN);
            let config = TcpConfig::default();
            let iss = SeqNumber(99);
            let mut kept = Tcp::accept(config.clone(), now, iss, 7, &syn);
            assert!(kept.next_control(now).is_some(), "the SYN/ACK");
            let wanted = kept.syn_fields(now);
            let mut fields = stateless_syn_ack(&config, now, 7, &syn);
            let echo = fields.timestamps.map_or(0, |t| t.tsval);
            if let (Some(ours), Some(theirs)) = (&mut fields.timestamps, wanted.timestamps) {
                ours.tsval = theirs.tsval;
            }
            assert_eq!(format!("{fields:?}"), format!("{wanted:?}"));

            let memory = SynMemory::from_echo(echo);
            let remembered = TcpOptions {
                window_scale: memory.window_scale.filter(|_| timestamps),
                sack_permitted: memory.sack_permitted && timestamps,
                ..options(timestamps, None, false)
            };
            let syn = segment(&remembered, 1000, Flags::SYN);
            let mut resumed = Tcp::resume(config, now, iss, 7, &syn);
            assert!(resumed.next_control(now).is_none(), "nothing to repeat");
            let answer = TcpOptions {
                timestamps: timestamps.then_some(Timestamps {
                    tsval: 77_010,
                    tsecr: echo,
                }),
                ..TcpOptions::default()
            };
            let ack = SegmentIn {
                ack: iss + 1,
                ..segment(&answer, 1001, Flags::ACK)
            };
            let later = now + core::time::Duration::from_millis(30);
            let mut c = Counters::new();
            for tcp in [&mut kept, &mut resumed] {
                let verdict = tcp.on_segment(later, &ack, Chain::new(), &mut c);
                assert!(verdict.established && verdict.valid);
            }
            let (a, b) = (kept.header(later), resumed.header(later));
            assert_eq!(format!("{a:?}"), format!("{b:?}"));
            assert_eq!(kept.snd_wnd(), resumed.snd_wnd());
            assert_eq!(kept.mss(), resumed.mss());
            assert_eq!(resumed.state(), State::Established);
        }
    }
}
