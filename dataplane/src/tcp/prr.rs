//! Proportional rate reduction (RFC 6937 as revised by RFC 9937): how much may be sent during
//! fast recovery, so that the window ends at `ssthresh` without a burst and without a stall.

/// One recovery episode.
#[derive(Clone, Debug, Default)]
pub(super) struct Prr {
    delivered: u64,
    out: u64,
    recover_fs: u32,
}

impl Prr {
    /// Recovery begins with `recover_fs` bytes outstanding (RecoverFS).
    pub(super) fn enter(recover_fs: u32) -> Self {
        Self {
            delivered: 0,
            out: 0,
            recover_fs: recover_fs.max(1),
        }
    }

    /// Something was (re)transmitted.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.out += u64::from(bytes);
    }

    /// The congestion window after an ACK that delivered `delivered` bytes and left `pipe` in
    /// flight. `safe` = it advanced SND.UNA and revealed no further loss (RFC 9937 SafeACK).
    pub(super) fn on_ack(
        &mut self,
        delivered: u32,
        pipe: u32,
        ssthresh: u32,
        mss: u32,
        safe: bool,
    ) -> u32 {
        self.delivered += u64::from(delivered);
        let mut send = if pipe > ssthresh {
            // Proportional part: one segment out for every `RecoverFS / ssthresh` delivered.
            (self.delivered * u64::from(ssthresh))
                .div_ceil(u64::from(self.recover_fs))
                .saturating_sub(self.out)
        } else {
            let mut limit = self
                .delivered
                .saturating_sub(self.out)
                .max(u64::from(delivered));
            if safe {
                limit += u64::from(mss);
            }
            limit.min(u64::from(ssthresh - pipe))
        };
        if self.out == 0 {
            // RFC 9937 §6.2: the first retransmission always leaves.
            send = send.max(u64::from(mss));
        }
        pipe.saturating_add(u32::try_from(send).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn proportional_reduction_halves_the_rate() {
        // 20 segments out, ssthresh 10: one segment leaves for every two delivered.
        let mut prr = Prr::enter(20 * MSS);
        let mut pipe = 19 * MSS; // one lost
        let mut sent = 0;
        for _ in 0..18 {
            pipe -= MSS;
            let cwnd = prr.on_ack(MSS, pipe, 10 * MSS, MSS, true);
            while cwnd >= pipe + MSS {
                prr.sent(MSS);
                pipe += MSS;
                sent += 1;
            }
        }
        assert!((8..=10).contains(&sent), "{sent}");
        assert!((9 * MSS..=11 * MSS).contains(&pipe), "{pipe}");
    }

    #[test]
    fn heavy_loss_grows_back_like_slow_start() {
        let mut prr = Prr::enter(20 * MSS);
        prr.sent(MSS);
        // 17 lost: the pipe is far below ssthresh; every safe ACK lets two segments go.
        let cwnd = prr.on_ack(2 * MSS, 2 * MSS, 10 * MSS, MSS, true);
        assert_eq!(cwnd, 5 * MSS);
        prr.sent(3 * MSS);
        let unsafe_ack = prr.on_ack(MSS, 4 * MSS, 10 * MSS, MSS, false);
        assert_eq!(unsafe_ack, 5 * MSS);
    }

    #[test]
    fn the_first_retransmission_is_never_held_back() {
        let mut prr = Prr::enter(100 * MSS);
        assert_eq!(prr.on_ack(0, 99 * MSS, 50 * MSS, MSS, false), 100 * MSS);
    }
}
