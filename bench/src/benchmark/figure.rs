//! One figure of a benchmark that is neither the matrix nor the engine, with what it is
//! compared with and the bar that it has to meet.
//!
//! Figures that share benchmark, place and quantity are drawn in one chart; one of them may
//! be the yardstick that the others are held against.

use serde::{Deserialize, Serialize};

use super::statistics::Spread;

/// Which benchmark.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bench {
    /// The raw port, without protocol.
    Pps,
    /// Requests and responses.
    Rr,
    /// Connections.
    Conn,
    /// The XDP program.
    Steer,
    /// Two hosts.
    Nic,
}

impl Bench {
    /// As in the command.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pps => "pps",
            Self::Rr => "rr",
            Self::Conn => "conn",
            Self::Steer => "steer",
            Self::Nic => "nic",
        }
    }
}

/// What a figure has to be, as the project has promised itself.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "of", content = "limit")]
pub enum Bar {
    /// The median itself.
    Value(f64),
    /// The median by that of the yardstick.
    Ratio(f64),
}

/// Median against bar.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Judgement {
    /// What is held against the limit.
    pub figure: f64,
    /// The limit.
    pub limit: f64,
    /// It is held.
    pub met: bool,
}

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Of which benchmark.
    pub bench: Bench,
    /// The chart that it belongs to: what all its subjects do.
    pub place: String,
    /// Who does it.
    pub subject: String,
    /// What is measured, as in `p99`.
    pub quantity: String,
    /// Its unit.
    pub unit: String,
    /// More of it is better.
    pub higher_is_better: bool,
    /// The others of its place and quantity are compared with it.
    pub yardstick: bool,
    /// What it must be.
    pub bar: Option<Bar>,
    /// One value per repeat.
    pub values: Vec<f64>,
    /// Why other repeats have none, and what else to know.
    pub remarks: Vec<String>,
}

impl Figure {
    /// Without values yet.
    #[must_use]
    pub fn new(
        bench: Bench,
        place: impl Into<String>,
        subject: impl Into<String>,
        (quantity, unit): (&str, &str),
        higher_is_better: bool,
    ) -> Self {
        Self {
            bench,
            place: place.into(),
            subject: subject.into(),
            quantity: quantity.to_owned(),
            unit: unit.to_owned(),
            higher_is_better,
            yardstick: false,
            bar: None,
            values: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Makes it the yardstick of its chart.
    #[must_use]
    pub fn as_yardstick(mut self, yardstick: bool) -> Self {
        self.yardstick = yardstick;
        self
    }

    /// Gives it a bar.
    #[must_use]
    pub fn with_bar(mut self, bar: Option<Bar>) -> Self {
        self.bar = bar;
        self
    }

    /// Median and range.
    #[must_use]
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.iter().copied())
    }

    /// Whether both are drawn in one chart.
    #[must_use]
    pub fn shares_chart(&self, other: &Self) -> bool {
        (self.bench, &self.place, &self.quantity) == (other.bench, &other.place, &other.quantity)
    }

    /// Whether both are the same figure of two runs.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.shares_chart(other) && self.subject == other.subject && self.unit == other.unit
    }

    /// Its median by that of the yardstick among `all`.
    #[must_use]
    pub fn ratio(&self, all: &[Self]) -> Option<f64> {
        let yardstick = all
            .iter()
            .find(|other| other.yardstick && self.shares_chart(other))?;
        let base = yardstick.spread()?.median;
        (base > 0.0 && !self.yardstick).then_some(self.spread()?.median / base)
    }

    /// Whether it meets its bar.
    #[must_use]
    pub fn judge(&self, all: &[Self]) -> Option<Judgement> {
        let (figure, limit) = match self.bar? {
            Bar::Value(limit) => (self.spread()?.median, limit),
            Bar::Ratio(limit) => (self.ratio(all)?, limit),
        };
        let met = if self.higher_is_better {
            figure >= limit
        } else {
            figure <= limit
        };
        Some(Judgement { figure, limit, met })
    }

    /// Ratio and bar in words; empty when there is nothing to say.
    #[must_use]
    pub fn words(&self, all: &[Self]) -> String {
        let ratio = self.ratio(all).map(|ratio| {
            let base = all
                .iter()
                .find(|other| other.yardstick && self.shares_chart(other));
            let base = base.map_or("", |base| &base.subject);
            format!("{ratio:.2} × {base}")
        });
        let bar = self.judge(all).map(|judgement| {
            let sign = if self.higher_is_better { '≥' } else { '≤' };
            let met = if judgement.met { "met" } else { "missed" };
            format!("(bar {sign} {}: {met})", judgement.limit)
        });
        [ratio, bar]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Adds a value, or why there is none, to the figure that is the same as `like`, which is
/// appended if there is none yet.
pub fn record(figures: &mut Vec<Figure>, like: Figure, value: Result<f64, String>) {
    let at = figures.iter().position(|figure| figure.is_same(&like));
    let at = at.unwrap_or_else(|| {
        figures.push(like);
        figures.len() - 1
    });
    match value {
        Ok(value) => figures[at].values.push(value),
        Err(why) => figures[at].remarks.push(why),
    }
}

/// A distribution: value at each of a few percentiles.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// Of which benchmark.
    pub bench: Bench,
    /// Its chart.
    pub place: String,
    /// Who.
    pub subject: String,
    /// Unit of the values.
    pub unit: String,
    /// Percentile and value, both rising.
    pub points: Vec<(f64, f64)>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Latencies of a yardstick and another, half as long and with bars.
    pub(crate) fn example() -> Vec<Figure> {
        let figure =
            |subject: &str| Figure::new(Bench::Rr, "64 B <x>", subject, ("p50", "µs"), false);
        let mut kernel = figure("kernel").as_yardstick(true);
        kernel.values = vec![50.0, 52.0, 48.0];
        let mut braid = figure("braid").with_bar(Some(Bar::Ratio(0.6)));
        braid.values = vec![25.0, 26.0, 24.0];
        let mut other = figure("other").with_bar(Some(Bar::Value(10.0)));
        other.values = vec![100.0];
        other.remarks.push("1 failed: no <luck>".to_owned());
        vec![kernel, braid, other]
    }

    #[test]
    fn medians_are_held_against_yardstick_and_bar() {
        let all = example();
        assert_eq!(all[1].ratio(&all), Some(0.5));
        assert_eq!(all[0].ratio(&all), None, "nothing is its own yardstick");
        assert!(all[1].judge(&all).unwrap().met);
        assert_eq!(all[1].words(&all), "0.50 × kernel (bar ≤ 0.6: met)");
        assert_eq!(
            all[2].judge(&all),
            Some(Judgement {
                figure: 100.0,
                limit: 10.0,
                met: false
            })
        );
        assert_eq!(all[0].words(&all), "");
    }

    #[test]
    fn a_bar_that_is_a_least_value_is_met_from_above() {
        let mut all = example();
        for figure in &mut all {
            figure.higher_is_better = true;
        }
        assert!(!all[1].judge(&all).unwrap().met);
        assert!(all[2].judge(&all).unwrap().met);
    }

    #[test]
    fn values_gather_under_the_same_figure() {
        let mut all = Vec::new();
        let like = |place: &str| Figure::new(Bench::Pps, place, "x", ("rate", "Gb/s"), true);
        record(&mut all, like("a"), Ok(1.0));
        record(&mut all, like("b"), Ok(2.0));
        record(&mut all, like("a"), Ok(3.0));
        record(&mut all, like("a"), Err("no".to_owned()));
        assert_eq!(
            (&all[0].values[..], &all[1].values[..]),
            (&[1.0, 3.0][..], &[2.0][..])
        );
        assert_eq!(all[0].remarks, ["no"]);
    }

    #[test]
    fn without_values_there_is_nothing_to_judge() {
        let mut all = example();
        all[0].values.clear();
        assert_eq!(all[1].judge(&all), None);
        assert_eq!(all[1].words(&all), "");
    }
}
