//! Random choices.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// One of `choices`.
pub(super) fn one<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

/// A number whose logarithm is uniform: as often between 1 and 10 as between 10 and 100.
pub(super) fn scale(rng: &mut StdRng, min: u64, max: u64) -> u64 {
    let (low, high) = ((min as f64).ln(), (max as f64).ln());
    let drawn = rng.random_range(low..=high).exp();
    // Between min and max, so it fits.
    #[expect(
        clippy::cast_sign_loss,
        reason = "the exponential of anything is positive"
    )]
    let drawn = drawn as u64;
    drawn.clamp(min, max)
}

pub(super) fn micros(rng: &mut StdRng, min: u64, max: u64) -> Duration {
    Duration::from_micros(scale(rng, min, max))
}

pub(super) fn millis(rng: &mut StdRng, min: u64, max: u64) -> Duration {
    Duration::from_millis(scale(rng, min, max))
}
