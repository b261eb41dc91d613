//! Two runs side by side. A difference is only called one when the ranges of the repeats
//! do not touch.

use crate::benchmark::results::Results;
use crate::benchmark::statistics::{Spread, Verdict};

/// One figure in both runs.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// In the first run.
    pub first: Spread,
    /// In the second.
    pub second: Spread,
    /// How the second stands to the first.
    pub verdict: Verdict,
}

impl Difference {
    fn new(
        what: String,
        unit: &str,
        higher_is_better: bool,
        first: Option<Spread>,
        second: Option<Spread>,
    ) -> Option<Self> {
        let (first, second) = (first?, second?);
        Some(Self {
            what,
            unit: unit.to_owned(),
            verdict: Verdict::between(&first, &second, higher_is_better),
            first,
            second,
        })
    }

    /// Median of the second by that of the first.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.first.median > 0.0).then(|| self.second.median / self.first.median)
    }
}

/// Everything that both runs measured.
#[must_use]
pub fn compare(first: &Results, second: &Results) -> Vec<Difference> {
    let mut out = Vec::new();
    let cells = second.by_cell();
    for before in &first.cells {
        let Some(after) = cells.get(&before.cell) else {
            continue;
        };
        let what = before.cell.to_string();
        let rates = (before.gbit_per_s(), after.gbit_per_s());
        out.extend(Difference::new(
            what.clone(),
            "Gb/s",
            true,
            rates.0,
            rates.1,
        ));
        let cpu = (before.cpu_s_per_gib(), after.cpu_s_per_gib());
        out.extend(Difference::new(what, "CPU s/GiB", false, cpu.0, cpu.1));
    }
    for before in &first.engine {
        let after = second.engine.iter().find(|after| {
            (&after.subject, after.frame_bytes) == (&before.subject, before.frame_bytes)
        });
        if let Some(after) = after {
            let what = format!("{}, {} bytes", before.subject, before.frame_bytes);
            let (before, after) = (Some(before.ns_per_packet), Some(after.ns_per_packet));
            out.extend(Difference::new(what, "ns/packet", false, before, after));
        }
    }
    for before in &first.figures {
        let after = second.figures.iter().find(|after| after.is_same(before));
        if let Some(after) = after {
            let what = format!(
                "{}, {}, {}: {}",
                before.bench.as_str(),
                before.place,
                before.quantity,
                before.subject
            );
            out.extend(Difference::new(
                what,
                &before.unit,
                before.higher_is_better,
                before.spread(),
                after.spread(),
            ));
        }
    }
    out
}

/// Why the runs may not be comparable at all.
#[must_use]
pub fn doubts(first: &Results, second: &Results) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut differs = |what: &str, a: &str, b: &str| {
        if a != b {
            doubts.push(format!("{what}: {a} and {b}"));
        }
    };
    let (a, b) = (&first.machine, &second.machine);
    differs("processor", &a.cpu, &b.cpu);
    differs("cores", &a.cores.to_string(), &b.cores.to_string());
    differs("kernel", &a.kernel, &b.kernel);
    differs("build profile", &a.profile, &b.profile);
    let (a, b) = (&first.protocol, &second.protocol);
    differs("seconds", &a.seconds.to_string(), &b.seconds.to_string());
    differs("mode", &a.mode, &b.mode);
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::figure::tests::example as figures;
    use crate::benchmark::results::tests::example;

    #[test]
    fn a_faster_run_is_better_in_every_cell_and_itself_is_not() {
        let (slow, fast) = (example(1.0), example(2.0));
        let differences = compare(&slow, &fast);
        assert_eq!(differences.len(), 2 * slow.cells.len());
        assert!(differences.iter().all(|d| d.verdict == Verdict::Better));
        assert!(differences.iter().any(|d| d.ratio() == Some(2.0)));
        let same = compare(&slow, &slow);
        assert!(same.iter().all(|d| d.verdict == Verdict::NoDifferenceShown));
        let worse = compare(&fast, &slow);
        assert!(worse.iter().all(|d| d.verdict == Verdict::Worse));
    }

    #[test]
    fn figures_are_compared_by_their_own_direction() {
        let (mut slow, mut fast) = (example(1.0), example(1.0));
        (slow.figures, fast.figures) = (figures(), figures());
        for figure in &mut fast.figures {
            figure.values.iter_mut().for_each(|value| *value /= 2.0);
        }
        let verdicts: Vec<_> = compare(&slow, &fast)
            .into_iter()
            .filter(|d| d.unit == "µs")
            .map(|d| d.verdict)
            .collect();
        let few = Verdict::TooFewRepeats;
        assert_eq!(verdicts, [Verdict::Better, Verdict::Better, few]);
    }

    #[test]
    fn what_only_one_run_has_is_left_out() {
        let (mut few, all) = (example(1.0), example(1.0));
        few.cells.truncate(2);
        few.cells[1].repeats.clear();
        assert_eq!(compare(&few, &all).len(), 2);
    }

    #[test]
    fn other_circumstances_are_said() {
        let (a, mut b) = (example(1.0), example(1.0));
        assert!(doubts(&a, &b).is_empty());
        b.machine.kernel = "7.0".to_owned();
        assert_eq!(doubts(&a, &b), ["kernel:  and 7.0"]);
    }
}
