//! Median and spread, and when two of them differ.

use serde::{Deserialize, Serialize};

/// What repeats of one measurement came to.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub count: usize,
}

impl Spread {
    /// Of finite values; `None` if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self {
            median,
            min,
            max,
            count: values.len(),
        })
    }

    /// Some value lies in both ranges.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// Repeats below which ranges say nothing about noise.
pub const REPEATS_MIN: usize = 3;

/// Medians closer than this are not called different, whatever the ranges say: few repeats
/// understate the noise.
pub const DIFFERENCE_MIN: f64 = 0.03;

/// How a second measurement stands to a first.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All of the second are better than all of the first.
    Better,
    /// All of the second are worse than all of the first.
    Worse,
    /// The ranges overlap, or the medians are as good as equal.
    NoDifferenceShown,
    /// Too few repeats to tell.
    TooFewRepeats,
}

impl Verdict {
    /// Compares; `higher_is_better` is about the values.
    #[must_use]
    pub fn between(first: &Spread, second: &Spread, higher_is_better: bool) -> Self {
        if first.count.min(second.count) < REPEATS_MIN {
            return Self::TooFewRepeats;
        }
        let difference = (second.median - first.median).abs();
        if first.overlaps(second) || difference < DIFFERENCE_MIN * first.median.abs() {
            return Self::NoDifferenceShown;
        }
        if (second.median > first.median) == higher_is_better {
            Self::Better
        } else {
            Self::Worse
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceShown => "no difference shown",
            Self::TooFewRepeats => "too few repeats to tell",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values.iter().copied()).unwrap()
    }

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(
            spread(&[7.0]),
            Spread {
                median: 7.0,
                min: 7.0,
                max: 7.0,
                count: 1
            }
        );
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN, f64::INFINITY]), None);
        assert_eq!(spread(&[1.0, f64::NAN, 5.0]).count, 2);
    }

    #[test]
    fn overlapping_ranges_show_nothing() {
        let (slow, fast) = (spread(&[9.0, 10.0, 11.0]), spread(&[10.5, 14.0, 15.0]));
        assert_eq!(
            Verdict::between(&slow, &fast, true),
            Verdict::NoDifferenceShown
        );
    }

    #[test]
    fn ranges_apart_are_judged_by_what_is_better() {
        let (low, high) = (spread(&[9.0, 10.0, 11.0]), spread(&[12.0, 14.0, 15.0]));
        assert_eq!(Verdict::between(&low, &high, true), Verdict::Better);
        assert_eq!(Verdict::between(&high, &low, true), Verdict::Worse);
        assert_eq!(Verdict::between(&low, &high, false), Verdict::Worse);
    }

    #[test]
    fn tiny_differences_and_single_values_show_nothing() {
        let (a, b) = (spread(&[10.0, 10.01, 10.02]), spread(&[10.1, 10.11, 10.12]));
        assert!(!a.overlaps(&b));
        assert_eq!(Verdict::between(&a, &b, true), Verdict::NoDifferenceShown);
        assert_eq!(
            Verdict::between(&spread(&[1.0]), &spread(&[9.0]), true),
            Verdict::TooFewRepeats
        );
    }
}
