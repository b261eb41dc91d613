//! Joining a connection: MP_JOIN in both roles (RFC 8684 §3.2).
//!
//! Whatever is wrong with a join's handshake ends in a RST with reason 1, and never touches
//! the rest of the connection.

use rand::RngCore;

use super::api::{Cx, JoinReject, OpenError, SubflowId, SubflowPath};
use super::event::Event;
use super::fastopen::FastOpenSyn;
use super::handshake::{accepted_tcp, template};
use super::key;
use super::state::Core;
use super::subflow::{Phase, Subflow};
use crate::counters::Counter;
use crate::wire::mptcp::{MptcpOption, reset_reason};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::Flags;
use crate::wire::types::Token;

/// Joins of one connection that wait for their third ACK: half of the default of
/// `subflows_max`, so that a flood with a token that was overheard leaves room to subflows that
/// proved their key.
pub(crate) const JOINS_PENDING_MAX: usize = 4;

impl Core {
    /// Whether subflows may be opened. A server has the keys confirmed by the handshake, but a
    /// DSS has to come, too (RFC 8684 §3.1).
    pub(crate) fn may_open(&self) -> bool {
        self.is_mptcp() && self.fully_established && self.dss_heard
    }

    /// Opens a subflow by MP_JOIN.
    pub(crate) fn open_subflow(
        &mut self,
        cx: &mut Cx<'_>,
        mut path: SubflowPath,
    ) -> Result<SubflowId, OpenError> {
        if !self.may_open() {
            return Err(OpenError::NotMptcp);
        }
        if self.is_over() || self.closing.closes_subflows(&self.reassembly) {
            return Err(OpenError::Closing);
        }
        if self.subflows.iter().any(|s| s.tuple() == path.tuple) {
            return Err(OpenError::Exists);
        }
        if !self.make_room_for_attempt(cx) {
            return Err(OpenError::Limit);
        }
        let remote = path.tuple.remote;
        if self.remote_denies_join && self.addresses.is_initial(remote) {
            return Err(OpenError::InitialAddressDenied);
        }
        if self.addresses.has_failed(remote) || self.addresses.is_barred(path.tuple) {
            return Err(OpenError::FailedBefore);
        }
        let template = template(&path)?;
        path.remote_id = self
            .addresses
            .remote_id_of(remote.ip())
            .unwrap_or(path.remote_id);
        let tcp = self.new_tcp(cx, &path, true);
        let id = self.allocate_id();
        let mut subflow = Subflow::new(id, path, template, tcp, Phase::JoinSyn);
        subflow.nonce_local = cx.rng.next_u32();
        self.add_subflow(cx, subflow);
        Ok(id)
    }

    /// A MP_JOIN SYN with our token.
    pub(crate) fn accept_join(
        &mut self,
        cx: &mut Cx<'_>,
        mut path: SubflowPath,
        syn: &TcpPacket,
    ) -> Result<SubflowId, JoinReject> {
        let join = syn.options.mptcp.iter().find_map(|o| match *o {
            MptcpOption::MpJoinSyn {
                backup,
                address_id,
                token,
                nonce,
            } => Some((backup, address_id, token, nonce)),
            _ => None,
        });
        let Some((backup, address_id, token, nonce)) = join else {
            return Err(JoinReject::Malformed);
        };
        cx.counters.inc(Counter::MPJoinSynRx);
        if backup {
            cx.counters.inc(Counter::MPJoinSynBackupRx);
        }
        let reject = self.join_obstacle(token).or_else(|| {
            // A repeated SYN reaches its subflow by the flow table, not this way.
            let taken = self.subflows.iter().any(|s| s.tuple() == path.tuple);
            taken.then_some(JoinReject::Malformed)
        });
        if let Some(reject) = reject {
            cx.counters.inc(match reject {
                JoinReject::NotEstablished => Counter::MPJoinNotEstablished,
                _ => Counter::MPJoinRejected,
            });
            return Err(reject);
        }
        if cx.config.deny_join_initial
            && self.version.has_flag_c()
            && self.addresses.is_initial_local(path.tuple.local)
        {
            // The peer was told so by flag C.
            cx.counters.inc(Counter::MPJoinRejected);
            return Err(JoinReject::Prohibited);
        }
        let Ok(template) = template(&path) else {
            return Err(JoinReject::Malformed);
        };
        self.make_room_for_join(cx)?;
        path.remote_id = address_id;
        path.local_id = self.local_id_of(path.tuple.local);
        let tcp = accepted_tcp(cx, &path, syn, true, &FastOpenSyn::default());
        let id = self.allocate_id();
        let mut subflow = Subflow::new(id, path, template, tcp, Phase::JoinAccepted);
        subflow.nonce_local = cx.rng.next_u32();
        subflow.nonce_remote = nonce;
        subflow.backup_remote = backup;
        self.add_subflow(cx, subflow);
        Ok(id)
    }

    /// Joins that wait for the third ACK, which alone proves anything.
    pub(crate) fn joins_pending(&self) -> usize {
        let pending = |s: &&Subflow| s.phase == Phase::JoinAccepted && s.death.is_none();
        self.subflows.iter().filter(pending).count()
    }

    fn is_full(&self, cx: &Cx<'_>) -> bool {
        let live = self.subflows.iter().filter(|s| s.death.is_none()).count();
        live >= usize::from(cx.config.subflows_max)
    }

    /// A subflow in this phase that the other end has left unanswered for a timeout.
    fn unanswered(&self, phase: Phase) -> Option<usize> {
        self.subflows
            .iter()
            .position(|s| s.phase == phase && s.death.is_none() && s.tcp.handshake_attempts() > 0)
    }

    /// Whether one more join may wait. Who knows the token can send any number of SYNs, and a
    /// box may let SYNs through but not what answers them; one that has not answered in time
    /// gives way, so that the path of the true peer stays open.
    fn make_room_for_join(&mut self, cx: &mut Cx<'_>) -> Result<(), JoinReject> {
        let full = self.is_full(cx);
        if !full && self.joins_pending() < JOINS_PENDING_MAX {
            return Ok(());
        }
        // What was behind an address that has got another one in between (NAT) stays here until
        // TCP gives it up.
        let stale = |s: &Subflow| s.stale && s.death.is_none();
        let stale = || self.subflows.iter().position(stale).filter(|_| full);
        let Some(i) = self.unanswered(Phase::JoinAccepted).or_else(stale) else {
            cx.counters.inc(if full {
                Counter::MPJoinRejected
            } else {
                Counter::MPJoinPendingOverflow
            });
            return Err(JoinReject::Limit);
        };
        cx.counters.inc(Counter::MPJoinPendingEvicted);
        self.kill(i, Some(reset_reason::LACK_OF_RESOURCES), "gave way");
        Ok(())
    }

    /// Whether one more subflow may be tried. While none works, an attempt that nobody answers
    /// must not keep another path from being tried: it gives way, and may be repeated.
    fn make_room_for_attempt(&mut self, cx: &Cx<'_>) -> bool {
        if !self.is_full(cx) {
            return true;
        }
        if self
            .subflows
            .iter()
            .any(|s| s.was_established && s.death.is_none())
        {
            return false;
        }
        let Some(i) = self.unanswered(Phase::JoinSyn) else {
            return false;
        };
        self.kill(i, None, "gave way");
        if let Some(death) = &mut self.subflows[i].death {
            death.transient = Some(true);
        }
        true
    }

    fn join_obstacle(&self, token: Token) -> Option<JoinReject> {
        let known = self.local.is_some_and(|k| k.token == token);
        if !self.is_mptcp() || !known {
            Some(JoinReject::NotMptcp)
        } else if self.remote.is_none() || !self.is_established() {
            // Without the peer's key its HMAC cannot be verified.
            Some(JoinReject::NotEstablished)
        } else if self.is_over() || self.closing.closes_subflows(&self.reassembly) {
            Some(JoinReject::Closing)
        } else {
            None
        }
    }

    pub(crate) fn own_hmac(&self, i: usize) -> Option<[u8; 20]> {
        let s = &self.subflows[i];
        let (local, remote) = (self.local?.key, self.remote?.key);
        let nonces = (s.nonce_local, s.nonce_remote);
        Some(key::join_hmac(
            self.version,
            local,
            remote,
            nonces.0,
            nonces.1,
        ))
    }

    fn peer_hmac(&self, i: usize) -> Option<[u8; 20]> {
        let s = &self.subflows[i];
        let (local, remote) = (self.local?.key, self.remote?.key);
        let nonces = (s.nonce_remote, s.nonce_local);
        Some(key::join_hmac(
            self.version,
            remote,
            local,
            nonces.0,
            nonces.1,
        ))
    }

    /// The MP_JOIN that proves our key.
    pub(crate) fn join_ack(&self, i: usize) -> Option<MptcpOption> {
        let hmac = self.own_hmac(i)?;
        Some(MptcpOption::MpJoinAck { hmac })
    }

    pub(crate) fn on_join_synack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        let join = packet.options.mptcp.iter().find_map(|o| match *o {
            MptcpOption::MpJoinSynAck {
                backup,
                address_id,
                hmac,
                nonce,
            } => Some((backup, address_id, hmac, nonce)),
            _ => None,
        });
        let Some((backup, address_id, hmac, nonce)) = join else {
            cx.counters.inc(Counter::MPJoinSynAckNoMPJoin);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "no MP_JOIN in SYN/ACK",
            );
            return false;
        };
        cx.counters.inc(Counter::MPJoinSynAckRx);
        if backup {
            cx.counters.inc(Counter::MPJoinSynAckBackupRx);
        }
        self.subflows[i].nonce_remote = nonce;
        let genuine = self.peer_hmac(i).is_some_and(|expected| {
            let expected = key::leftmost64(&expected);
            key::same(expected.to_be_bytes(), hmac.to_be_bytes())
        });
        if !genuine {
            cx.counters.inc(Counter::MPJoinSynAckHMacFailure);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "wrong HMAC in SYN/ACK",
            );
            return false;
        }
        let s = &mut self.subflows[i];
        s.path.remote_id = address_id;
        s.backup_remote = backup;
        s.phase = Phase::PreEstablished;
        s.join_ack = Some((cx.now + s.tcp.rto(), 0));
        let remote = s.tuple().remote;
        self.addresses.learned(address_id, remote);
        true
    }

    pub(crate) fn on_join_ack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        if packet.flags.contains(Flags::SYN) || !self.subflows[i].tcp.state().is_synchronized() {
            return false;
        }
        let hmac = packet.options.mptcp.iter().find_map(|o| match o {
            MptcpOption::MpJoinAck { hmac } => Some(*hmac),
            _ => None,
        });
        let Some(hmac) = hmac else {
            cx.counters.inc(Counter::MPJoinAckNoMPJoin);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "no MP_JOIN in third ACK",
            );
            return false;
        };
        let genuine = self
            .peer_hmac(i)
            .is_some_and(|expected| key::same(expected, hmac));
        if !genuine {
            cx.counters.inc(Counter::MPJoinAckHMacFailure);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "wrong HMAC in third ACK",
            );
            return false;
        }
        cx.counters.inc(Counter::MPJoinAckRx);
        // Only now is it the peer that says so: anybody may have sent the SYN.
        let path = &self.subflows[i].path;
        self.addresses.learned(path.remote_id, path.tuple.remote);
        if !self.version.authenticates_addresses() {
            self.addresses.heard(path.tuple.local.ip());
        }
        self.join_established(cx, i);
        // The peer sends no data before this (RFC 8684 §3.2).
        self.subflows[i].tcp.ack_now();
        true
    }

    pub(crate) fn join_established(&mut self, cx: &mut Cx<'_>, i: usize) {
        if !self.is_mptcp() {
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "the connection fell back",
            );
            return;
        }
        let token = self.id;
        self.was_joined = true;
        self.subflowless_since = None;
        let s = &mut self.subflows[i];
        s.phase = Phase::Established;
        s.was_established = true;
        let room = u8::try_from(s.data_options_len()).unwrap_or(u8::MAX);
        s.tcp.set_option_room(room);
        let tuple = s.tuple();
        self.addresses.join_worked(tuple.remote);
        cx.actions.events.push(Event::SubflowEstablished {
            token,
            subflow: s.id,
            local: tuple.local,
            remote: tuple.remote,
            local_id: s.local_id().0,
            remote_id: s.remote_id().0,
            backup: s.backup(),
        });
        if self.closing.closes_subflows(&self.reassembly) {
            self.subflows[i].close();
        }
        self.join_is_decided(cx);
    }
}
