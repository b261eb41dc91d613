//! How many frames a fill ring holds.
//!
//! A fill ring is a queue: the frame given last is written last. All that is in it is the
//! working set of whoever copies packets in, so a ring that holds more than a round of the
//! worker uses up only makes those frames cold. The level starts low, doubles when a round
//! leaves little of it, and is halved when it was too high for long.

/// Where the level starts, and its least: 4 MiB of the usual frames, the L2 and a share of the
/// L3 cache of a core.
pub(super) const LEVEL_MIN: u32 = 1024;

/// The level is judged too high no earlier than after so many times its frames.
const REVIEW: u64 = 64;

/// The level of one fill ring.
#[derive(Debug)]
pub(super) struct FillLevel {
    target: u32,
    max: u32,
    /// Least that was left since the last review.
    least: u32,
    /// Frames given since then.
    given: u64,
    /// The ring was filled to the target: what is missing now was used.
    topped: bool,
}

impl FillLevel {
    pub(super) fn new(max: u32) -> Self {
        let target = LEVEL_MIN.min(max);
        Self {
            target,
            max,
            least: target,
            given: 0,
            topped: false,
        }
    }

    /// `left` frames are in the ring: how many to add.
    pub(super) fn wanted(&mut self, left: u32) -> u32 {
        if self.topped {
            self.least = self.least.min(left);
            if left < self.target / 4 && self.target < self.max {
                self.set((2 * self.target).min(self.max));
            } else if self.given >= REVIEW * u64::from(self.target) {
                let high = self.least > self.target / 2 && self.target > LEVEL_MIN;
                self.set(match high {
                    true => (self.target / 2).max(LEVEL_MIN),
                    false => self.target,
                });
            }
        }
        self.target.saturating_sub(left)
    }

    /// Of those wanted, so many were added.
    pub(super) fn added(&mut self, wanted: u32, added: u32) {
        self.topped = added == wanted;
        self.given += u64::from(added);
    }

    fn set(&mut self, target: u32) {
        self.target = target;
        self.least = target;
        self.given = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds that use up `used` frames each; the level at the end.
    fn rounds(level: &mut FillLevel, left: &mut u32, count: u32, used: u32) -> u32 {
        for _ in 0..count {
            let wanted = level.wanted(*left);
            level.added(wanted, wanted);
            *left = (*left + wanted).saturating_sub(used);
        }
        level.target
    }

    #[test]
    fn it_follows_what_a_round_uses_up() {
        let (mut level, left) = (FillLevel::new(4096), &mut 0);
        assert_eq!(rounds(&mut level, left, 1000, 100), LEVEL_MIN);
        assert_eq!(rounds(&mut level, left, 1000, 1500), 2048);
        assert_eq!(rounds(&mut level, left, 1000, 4000), 4096);
        assert_eq!(rounds(&mut level, left, 10_000, 100), LEVEL_MIN);
        assert_eq!(rounds(&mut level, left, 10_000, 0), LEVEL_MIN);
    }

    #[test]
    fn an_exhausted_pool_is_no_reason_to_want_more() {
        let mut level = FillLevel::new(4096);
        for _ in 0..100 {
            let wanted = level.wanted(0);
            level.added(wanted, 0);
        }
        assert_eq!(level.target, LEVEL_MIN);
    }

    #[test]
    fn a_small_ring_is_filled() {
        assert_eq!(FillLevel::new(256).wanted(0), 256);
    }
}
