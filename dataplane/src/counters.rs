//! Named counters: one per drop, fallback, reset and noteworthy event.
//!
//! Names are the kernel's (`net/mptcp/mib.h`, `TcpExt`) wherever the kernel counts
//! the same thing, so that `braid counters` and `nstat` can be read side by side.
//! A worker owns its [`Counters`]; nothing here is shared or atomic.

macro_rules! counters {
    ($( $(#[$doc:meta])* $name:ident, )*) => {
        /// What is counted.
        #[allow(clippy::upper_case_acronyms)]
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Counter { $( $(#[$doc])* $name, )* }

        impl Counter {
            /// Every counter, in declaration order.
            pub const ALL: &'static [Counter] = &[ $( Counter::$name, )* ];

            /// The name operators see.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Counter::$name => stringify!($name), )* }
            }
        }
    };
}

counters! {
    // --- MPTCP handshake (kernel names) ---
    /// MP_CAPABLE SYN received.
    MPCapableSYNRX,
    /// MP_CAPABLE SYN sent.
    MPCapableSYNTX,
    /// SYN/ACK with MP_CAPABLE received.
    MPCapableSYNACKRX,
    /// Third ACK with MP_CAPABLE received.
    MPCapableACKRX,
    /// SYN with a MP_CAPABLE of version 0 whose flag B is set: ignored.
    MPCapableSYNIgnored,
    /// Segment dropped: it overtook the one that names the keys.
    MPCapableEarlyDrop,
    /// Server fell back: the third ACK had no MP_CAPABLE.
    MPCapableFallbackACK,
    /// Client fell back: the SYN/ACK had no MP_CAPABLE.
    MPCapableFallbackSYNACK,
    /// Client gave up MP_CAPABLE after repeated SYN losses.
    MPCapableSYNTXDrop,
    /// Own key's token collided too often; served as TCP.
    MPFallbackTokenInit,
    // --- fallback and reset reasons ---
    /// Fell back: early data carried no MPTCP option.
    MPCapableDataFallback,
    /// Fell back: a DSS that cannot be right.
    DssFallback,
    /// Fell back: MPTCP not usable although peers agreed on it otherwise.
    FallbackFailed,
    /// Fell back: mapping does not fit the subflow.
    DSSCorruptionFallback,
    /// Subflow reset: mapping does not fit the subflow.
    DSSCorruptionReset,
    /// Infinite mapping sent.
    InfiniteMapTx,
    /// Infinite mapping received.
    InfiniteMapRx,
    /// MP_FAIL sent.
    MPFailTx,
    /// MP_FAIL received.
    MPFailRx,
    // --- join ---
    /// MP_JOIN SYN received.
    MPJoinSynRx,
    /// MP_JOIN SYN with the backup bit received.
    MPJoinSynBackupRx,
    /// MP_JOIN SYN/ACK received.
    MPJoinSynAckRx,
    /// MP_JOIN SYN/ACK with the backup bit received.
    MPJoinSynAckBackupRx,
    /// MP_JOIN third ACK received.
    MPJoinAckRx,
    /// MP_JOIN SYN sent.
    MPJoinSynTx,
    /// MP_JOIN with a token nobody has.
    MPJoinNoTokenFound,
    /// MP_JOIN SYN/ACK with a wrong HMAC.
    MPJoinSynAckHMacFailure,
    /// MP_JOIN SYN answered by a SYN/ACK without MP_JOIN.
    MPJoinSynAckNoMPJoin,
    /// MP_JOIN third ACK with a wrong HMAC.
    MPJoinAckHMacFailure,
    /// Third ACK of a join without MP_JOIN.
    MPJoinAckNoMPJoin,
    /// MP_JOIN refused by policy or limits.
    MPJoinRejected,
    /// MP_JOIN refused: too many joins wait for their third ACK.
    MPJoinPendingOverflow,
    /// Join that had to repeat its SYN/ACK, or stale subflow, gave way to a newer join.
    MPJoinPendingEvicted,
    /// MP_JOIN before the connection was fully established.
    MPJoinNotEstablished,
    /// MP_JOIN arrived on another worker's queue and was handed to the owner.
    MPJoinHandOff,
    // --- data ---
    /// Data segments sent again at connection level (reinjection).
    MPTCPRetrans,
    /// A new mapping contradicts the one in force.
    DSSNotMatching,
    /// Mapping does not cover the bytes it came with.
    DSSNoMatchTCP,
    /// DSS checksum mismatch.
    DataCsumErr,
    /// Connection-level out-of-order: appended at the tail.
    OFOQueueTail,
    /// Connection-level out-of-order: inserted.
    OFOQueue,
    /// Data outside the connection-level window, dropped.
    NoDSSInWindow,
    /// Data received twice at connection level.
    DuplicateData,
    /// Connection-level window probes sent.
    WinProbe,
    /// Bytes dropped because they lie beyond the connection-level window.
    BeyondWindowBytes,
    /// Experimental window option sent.
    WindowOptionTx,
    /// Experimental window option received and heeded.
    WindowOptionRx,
    /// Data dropped because the receive queue is at its limit.
    RcvPruned,
    /// Out-of-order data dropped because its queue is at its limit.
    OFOPruned,
    /// Unmapped bytes dropped after a window without a mapping.
    UnmappedDrop,
    // --- addresses ---
    /// ADD_ADDR received.
    AddAddr,
    /// ADD_ADDR sent.
    AddAddrTx,
    /// ADD_ADDR could not be sent.
    AddAddrTxDrop,
    /// ADD_ADDR echo received.
    EchoAdd,
    /// ADD_ADDR echo sent.
    EchoAddTx,
    /// ADD_ADDR with a port received.
    PortAdd,
    /// ADD_ADDR dropped: bad HMAC, no room or over the limit.
    AddAddrDrop,
    /// REMOVE_ADDR received.
    RmAddr,
    /// REMOVE_ADDR for an unknown identifier.
    RmAddrDrop,
    /// REMOVE_ADDR sent.
    RmAddrTx,
    /// REMOVE_ADDR could not be sent.
    RmAddrTxDrop,
    /// Subflow removed because of REMOVE_ADDR.
    RmSubflow,
    /// MP_PRIO sent.
    MPPrioTx,
    /// MP_PRIO received.
    MPPrioRx,
    // --- close and path state ---
    /// MP_FASTCLOSE sent.
    MPFastcloseTx,
    /// MP_FASTCLOSE received.
    MPFastcloseRx,
    /// MP_TCPRST sent.
    MPRstTx,
    /// MP_TCPRST received.
    MPRstRx,
    /// Subflow declared stale.
    SubflowStale,
    /// Stale subflow works again.
    SubflowRecover,
    /// Subflow closed in order here that the peer did not close in time.
    SubflowFinTimeout,
    /// Subflow reset while the connection closed: nothing was missing, and its path was dead.
    SubflowCloseReset,
    /// Connection closed because its last subflow was gone for too long.
    SubflowlessTimeout,
    /// Connection closed because wrong checksums ended every new subflow before it moved a byte.
    SubflowsSpoiled,
    /// Connection closed because no DATA_ACK came for what TCP had delivered.
    DataAckTimeout,
    // --- TCP, per subflow (kernel TcpExt names where they exist) ---
    /// Active opens.
    ActiveOpens,
    /// Passive opens.
    PassiveOpens,
    /// Connection attempts that failed.
    AttemptFails,
    /// Established connections that were reset.
    EstabResets,
    /// Segments retransmitted.
    RetransSegs,
    /// RST segments sent.
    OutRsts,
    /// Retransmission timeouts.
    TCPTimeouts,
    /// Tail loss probes sent.
    TCPLossProbes,
    /// Fast retransmissions.
    TCPFastRetrans,
    /// Recovery episodes entered on SACK/RACK evidence.
    TCPSackRecovery,
    /// Spurious retransmissions detected (DSACK).
    TCPDSACKRecv,
    /// SACK block that covers what was never sent, or nothing.
    TCPSACKDiscard,
    /// Retransmitted SYN.
    TCPSynRetrans,
    /// Segment refused by PAWS.
    PAWSEstab,
    /// Challenge ACK sent.
    TCPChallengeACK,
    /// Challenge ACK not sent: rate limit.
    TCPACKSkippedChallenge,
    /// SYN received in a synchronized state.
    TCPSYNChallenge,
    /// Segment outside the receive window.
    TCPOutOfWindow,
    /// ACK outside the send window.
    TCPInvalidAck,
    /// Out-of-order segment queued.
    TCPOFOQueue,
    /// Out-of-order segment dropped: limit.
    TCPOFODrop,
    /// Zero window probes sent.
    TCPWinProbe,
    /// Zero window advertised.
    TCPToZeroWindowAdv,
    /// Keepalive probes sent.
    TCPKeepAlive,
    /// Connection given up by timeout.
    TCPAbortOnTimeout,
    /// SYN dropped: the backlog is full.
    ListenOverflows,
    /// SYN answered without keeping anything: the backlog is full.
    SyncookiesSent,
    /// Connection opened by the ACK of such an answer.
    SyncookiesRecv,
    /// ACK that looked like one and was not; dropped.
    SyncookiesFailed,
    /// Path MTU lowered by an ICMP error.
    PmtuReduced,
    /// ICMP error about a flow of ours refused: embedded sequence out of window.
    OutOfWindowIcmps,
    /// Blackhole detection lowered the segment size.
    TCPMTUPFail,
    /// Connections established with ECN (RFC 3168).
    TCPEcnEstab,
    /// SYN sent again without asking for ECN.
    TCPEcnFallback,
    /// Window lowered because the peer echoed congestion marks.
    TCPEcnReduced,
    /// Segments acknowledged by ACKs that echo a congestion mark.
    TCPDeliveredCE,
    /// Fast Open: data of our SYN was taken.
    TCPFastOpenActive,
    /// Fast Open: data of our SYN was not taken, or not all of it.
    TCPFastOpenActiveFail,
    /// Fast Open: data of a SYN taken.
    TCPFastOpenPassive,
    /// Fast Open: a SYN's cookie was not valid.
    TCPFastOpenPassiveFail,
    /// Fast Open: data of a SYN not taken, too many handshakes are pending.
    TCPFastOpenListenOverflow,
    /// Fast Open: a cookie was asked for, here or by us.
    TCPFastOpenCookieReqd,
    /// Segments with the URG flag; their data stays in the stream.
    TCPUrgent,
    // --- engine: drops with their reason ---
    /// Frame that does not parse as a packet of ours.
    ParseError,
    /// TCP checksum wrong.
    InCsumErrors,
    /// Frames accepted with a partial (local sender's) checksum.
    PartialCsumAccepted,
    /// Segment for no known flow; answered by RST unless itself a RST.
    NoFlow,
    /// SYN to a claimed port without a listener.
    NoListener,
    /// New connection refused: frame or connection limit.
    MemoryPressureRefused,
    /// Flow table full.
    FlowTableFull,
    /// Hand-off ring to another worker full; frame dropped.
    HandOffFull,
    /// Frames that another worker handed to this one.
    HandOffRx,
    /// Event dropped: the control plane does not read.
    EventDrop,
    /// ICMP error about no known flow.
    IcmpNoFlow,
    /// TIME-WAIT table full: the oldest entry was recycled.
    TimeWaitOverflow,
    /// SYN reused a TIME-WAIT flow.
    TimeWaitRecycled,
    // --- ECN field of received TCP segments ---
    /// ECT(1).
    InECT1Pkts,
    /// ECT(0).
    InECT0Pkts,
    /// Congestion Experienced.
    InCEPkts,
    // --- frames and bytes ---
    /// No free frame when one was needed for transmission.
    TxNoFrame,
    /// Bursts of several segments handed to a port that segments.
    TxBursts,
    /// Transmit ring full.
    TxRingFull,
    /// Transmit refused: no carrier.
    TxNoCarrier,
    /// Scheduler left room unused to wait for a faster subflow.
    SchedulerWait,
    /// Segments sent a second time on purpose, by the redundant scheduler.
    RedundantTx,
    /// Payload copied to resend: its frame was still in a TX ring.
    TxRecopyInFlight,
    /// Payload copied to resend: header length differs.
    TxRecopyHeaderClass,
    /// Payload copied to resend: segment size shrank.
    TxRecopyMss,
    /// Received payload copied out to free its frame.
    RxCopybreak,
    /// A receive buffer grew with what its application reads.
    RcvWindowGrown,
    /// A receive buffer was cut because others need frames.
    RcvWindowCut,
    /// Received data pinned more frames than its window had promised, and was copied out.
    RcvWindowOverdrawn,
    /// Frames received.
    FramesRx,
    /// Payload bytes delivered to applications.
    BytesDelivered,
    /// Payload bytes taken from applications.
    BytesTaken,
    /// Payload bytes touched (summed or copied) on receive.
    RxBytesTouched,
    /// Payload bytes touched (summed or copied) on transmit.
    TxBytesTouched,
}

/// One worker's counters.
#[derive(Clone, PartialEq, Eq)]
pub struct Counters {
    values: [u64; Counter::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            values: [0; Counter::ALL.len()],
        }
    }
}

impl Counters {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one.
    #[inline]
    pub fn inc(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        let value = &mut self.values[counter as usize];
        *value = value.wrapping_add(n);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Counters that are not zero, by name.
    pub fn nonzero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL
            .iter()
            .map(|c| (c.as_str(), self.get(*c)))
            .filter(|(_, v)| *v != 0)
    }

    /// Adds another worker's counters.
    pub fn merge(&mut self, other: &Counters) {
        for (a, b) in self.values.iter_mut().zip(other.values) {
            *a = a.wrapping_add(b);
        }
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.nonzero()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_name() {
        let mut c = Counters::new();
        c.inc(Counter::MPCapableSYNRX);
        c.add(Counter::BytesDelivered, 7);
        let mut d = c.clone();
        d.merge(&c);
        assert_eq!(
            d.nonzero().collect::<Vec<_>>(),
            [("MPCapableSYNRX", 2), ("BytesDelivered", 14)]
        );
    }
}
