//! Bars as SVG, by hand: a report must need nothing but a browser, and a bar with a
//! whisker is four shapes.

use std::fmt::Write;

use crate::benchmark::figure::Curve;
use crate::benchmark::statistics::Spread;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// In front of it.
    pub label: String,
    /// CSS class: gives the colour.
    pub class: &'static str,
    /// Its length, with a whisker from min to max.
    pub spread: Spread,
    /// Behind it.
    pub note: String,
}

const LABEL_PX: f64 = 190.0;
const BARS_PX: f64 = 520.0;
const NOTE_PX: f64 = 230.0;
const ROW_PX: f64 = 22.0;

/// Horizontal bars with a title; `unit` names what the length means.
#[must_use]
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let largest = bars.iter().map(|bar| bar.spread.max).fold(0.0, f64::max);
    let scale = if largest > 0.0 {
        BARS_PX / largest
    } else {
        0.0
    };
    let width = LABEL_PX + BARS_PX + NOTE_PX;
    let height = ROW_PX * (bars.len() as f64 + 1.0) + 8.0;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\"><text class=\"title\" x=\"0\" \
         y=\"15\">{} ({})</text>",
        escape(title),
        escape(unit)
    );
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW_PX * (row as f64 + 1.0);
        let (middle, text) = (top + ROW_PX / 2.0, top + 15.0);
        let Spread {
            median, min, max, ..
        } = bar.spread;
        let (from, to) = (LABEL_PX + min.max(0.0) * scale, LABEL_PX + max * scale);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{LABEL_PX}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text x=\"{:.1}\" y=\"{text:.1}\">{} {}</text>",
            LABEL_PX - 8.0,
            escape(&bar.label),
            bar.class,
            top + 3.0,
            median.max(0.0) * scale,
            ROW_PX - 6.0,
            to + 8.0,
            number(median),
            escape(&bar.note),
        );
    }
    out.push_str("</svg>");
    out
}

/// One colour per curve, in turn.
const STROKES: [&str; 5] = ["#9aa5b1", "#3aa17e", "#d9822b", "#4c8bd6", "#8d7bc4"];
const PLOT_PX: (f64, f64) = (520.0, 220.0);
const MARGIN_PX: f64 = 60.0;

/// How many nines: evenly spaced, 0, 90, 99 and 99.9 %.
fn nines(percentile: f64) -> f64 {
    let above = ((100.0 - percentile) / 100.0).clamp(1e-6, 1.0);
    -above.log10()
}

/// Distributions as lines: nines of the percentile to the right, logarithm of the value up.
#[must_use]
pub fn curves(title: &str, curves: &[&Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let values = || points().map(|point| point.1.max(1e-9).log10());
    let (bottom, top) = (
        values().fold(f64::INFINITY, f64::min).floor(),
        values().fold(f64::NEG_INFINITY, f64::max).ceil(),
    );
    let right = points().map(|point| nines(point.0)).fold(1.0, f64::max);
    let mut out = String::new();
    if !(bottom.is_finite() && top.is_finite()) {
        return out;
    }
    let top = top.max(bottom + 1.0);
    let (width, height) = (MARGIN_PX + PLOT_PX.0 + NOTE_PX, PLOT_PX.1 + 60.0);
    let unit = curves.first().map_or("", |curve| &curve.unit);
    let x = |percentile: f64| MARGIN_PX + PLOT_PX.0 * nines(percentile) / right;
    let y = |log: f64| 30.0 + PLOT_PX.1 * (1.0 - (log - bottom) / (top - bottom));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\"><text class=\"title\" x=\"0\" \
         y=\"15\">{} ({})</text>",
        escape(title),
        escape(unit)
    );
    let mut decade = bottom;
    while decade <= top {
        let at = y(decade);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{MARGIN_PX}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            MARGIN_PX + PLOT_PX.0,
            MARGIN_PX - 6.0,
            at + 4.0,
            10_f64.powf(decade),
        );
        decade += 1.0;
    }
    for percentile in [50.0, 90.0, 99.0, 99.9, 99.99] {
        if nines(percentile) <= right + 1e-9 {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{percentile}</text>",
                x(percentile),
                PLOT_PX.1 + 50.0,
            );
        }
    }
    for (n, curve) in curves.iter().enumerate() {
        let stroke = STROKES[n % STROKES.len()];
        let points: Vec<String> = curve
            .points
            .iter()
            .map(|&(p, value)| format!("{:.1},{:.1}", x(p), y(value.max(1e-9).log10())))
            .collect();
        let (at, text) = (MARGIN_PX + PLOT_PX.0 + 12.0, 40.0 + 20.0 * n as f64);
        let _ = write!(
            out,
            "<polyline style=\"stroke:{stroke}\" points=\"{}\"/>\
             <rect style=\"fill:{stroke}\" x=\"{at}\" y=\"{:.1}\" width=\"12\" height=\"12\"/>\
             <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
            points.join(" "),
            text - 11.0,
            at + 18.0,
            escape(&curve.subject),
        );
    }
    out.push_str("</svg>");
    out
}

/// Three significant digits, more or less.
#[must_use]
pub fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Median and range.
#[must_use]
pub fn range(spread: &Spread) -> String {
    let Spread {
        median, min, max, ..
    } = *spread;
    format!("{} [{}–{}]", number(median), number(min), number(max))
}

/// Text inside HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_proportion_and_text_is_escaped() {
        let bar = |label: &str, median| Bar {
            label: label.to_owned(),
            class: "kernel",
            spread: Spread {
                median,
                min: median,
                max: median,
                count: 3,
            },
            note: String::new(),
        };
        let svg = bars("a <b>", "Gb/s", &[bar("x&y", 10.0), bar("half", 5.0)]);
        assert!(
            svg.contains("width=\"520.0\"") && svg.contains("width=\"260.0\""),
            "{svg}"
        );
        assert!(
            svg.contains("a &lt;b&gt;") && svg.contains("x&amp;y"),
            "{svg}"
        );
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn curves_rise_to_the_right_and_nothing_draws_nothing() {
        use crate::benchmark::figure::Bench;
        let curve = |points: &[(f64, f64)]| Curve {
            bench: Bench::Rr,
            place: String::new(),
            subject: "a&b".to_owned(),
            unit: "µs".to_owned(),
            points: points.to_vec(),
        };
        let some = curve(&[(50.0, 10.0), (90.0, 100.0), (99.0, 1000.0)]);
        let svg = curves("t", &[&some]);
        // One nine is half of the way to two; each decade is half of the height.
        assert!(svg.contains("320.0,140.0 580.0,30.0"), "{svg}");
        assert!(svg.contains("a&amp;b") && !svg.contains("99.9<"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(curves("t", &[&curve(&[])]), "");
        let flat = curves("t", &[&curve(&[(50.0, 1.0), (100.0, 1.0)])]);
        assert!(!flat.contains("NaN") && !flat.contains("inf"), "{flat}");
    }

    #[test]
    fn nothing_and_zero_draw_without_dividing_by_zero() {
        let zero = Bar {
            label: String::new(),
            class: "kernel",
            spread: Spread {
                median: 0.0,
                min: 0.0,
                max: 0.0,
                count: 1,
            },
            note: String::new(),
        };
        for svg in [bars("t", "u", &[]), bars("t", "u", &[zero])] {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
