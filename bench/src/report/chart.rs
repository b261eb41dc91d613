//! Bars as SVG, by hand: a report must need nothing but a browser, and a bar with a
//! whisker is four shapes.

use std::fmt::Write;

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
