//! Results of benchmarks as text, and as a page that needs nothing but a browser.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::chart::{Bar, bars, curves, escape, number, range};
use super::compare::{Difference, compare, doubts};
use crate::benchmark::cell::{End, Pair};
use crate::benchmark::engine::{EnginePoint, Subject};
use crate::benchmark::figure::Figure;
use crate::benchmark::results::{CellResult, Results};
use crate::benchmark::statistics::Verdict;
use crate::failure;
use crate::testbed::Result;

/// What `braid-bench report` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Results, as written by --json
    first: PathBuf,
    /// Results of another run, to compare with
    second: Option<PathBuf>,
    /// Write the page to this file
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write tables and charts for the repository into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "second")]
    write: Option<PathBuf>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let load = |file: &PathBuf| Results::load(file).map_err(io::Error::other);
    let first = load(&arguments.first)?;
    let second = arguments.second.as_ref().map(load).transpose()?;
    match &second {
        Some(second) => print!("{}", comparison_text(&first, second)),
        None => print!("{}", text(&first)),
    }
    if let Some(file) = &arguments.html {
        std::fs::write(file, html(&first, second.as_ref()))?;
        eprintln!("report: {}", file.display());
    }
    if let Some(directory) = &arguments.write {
        super::document::write(&first, directory).map_err(io::Error::other)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes results where they were asked for.
pub fn write(results: &Results, json: Option<&Path>, page: Option<&Path>) -> Result<()> {
    if let Some(file) = json {
        results.save(file)?;
        eprintln!("results: {}", file.display());
    }
    if let Some(file) = page {
        let text = html(results, None);
        std::fs::write(file, text).map_err(|e| failure!("{}: {e}", file.display()))?;
        eprintln!("report: {}", file.display());
    }
    Ok(())
}

pub(super) fn by_place(results: &Results) -> BTreeMap<String, Vec<&CellResult>> {
    let mut places: BTreeMap<String, Vec<&CellResult>> = BTreeMap::new();
    for result in &results.cells {
        places.entry(result.cell.place()).or_default().push(result);
    }
    places
}

pub(super) fn heading(results: &Results) -> String {
    let (m, p) = (&results.machine, &results.protocol);
    let commit = if m.commit.is_empty() { "?" } else { &m.commit };
    let each = if p.seconds > 0.0 {
        format!(" of {} s", number(p.seconds))
    } else {
        String::new()
    };
    format!(
        "{} ({} cores{}), Linux {}, braid {} ({commit}, {}); {} repeats{each}",
        m.cpu,
        m.cores,
        if m.virtual_machine { ", virtual" } else { "" },
        m.kernel,
        m.braid,
        m.profile,
        p.repeats,
    )
}

pub(super) fn ratio_words(results: &Results, result: &CellResult) -> String {
    match results.ratio_to_kernel(result.cell) {
        Some(ratio) if !result.cell.pair.is_baseline() => format!("{ratio:.2} × kernel"),
        _ => String::new(),
    }
}

/// For a terminal.
#[must_use]
pub fn text(results: &Results) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}\n", heading(results));
    for (place, cells) in by_place(results) {
        let _ = writeln!(out, "{place}");
        for result in cells {
            let rate = result.gbit_per_s().map_or("-".to_owned(), |s| range(&s));
            let cpu = result
                .cpu_s_per_gib()
                .map_or("-".to_owned(), |s| number(s.median));
            let _ = writeln!(
                out,
                "  {:14} {rate:>24} Gb/s  {cpu:>6} CPU s/GiB  {}{}",
                result.cell.pair.to_string(),
                ratio_words(results, result),
                remarks(result),
            );
        }
    }
    for (frame_bytes, points) in by_frame(results) {
        let _ = writeln!(out, "{frame_bytes} bytes");
        for point in points {
            let rate = point.gbit_per_s.map_or("-".to_owned(), |s| range(&s));
            let _ = writeln!(
                out,
                "  {:28} {rate:>24} Gb/s  {:>24} ns/packet",
                point.subject.to_string(),
                range(&point.ns_per_packet),
            );
        }
    }
    for chart in charts(results) {
        let _ = writeln!(out, "{}", chart_title(chart[0]));
        for figure in chart {
            let values = figure.spread().map_or("-".to_owned(), |s| range(&s));
            let _ = writeln!(
                out,
                "  {:34} {values:>24} {:10} {}{}",
                figure.subject,
                figure.unit,
                figure.words(&results.figures),
                figure_remarks(figure),
            );
        }
    }
    out
}

/// Figures by the chart that they share, in the order of the first of each.
pub(super) fn charts(results: &Results) -> Vec<Vec<&Figure>> {
    let mut charts: Vec<Vec<&Figure>> = Vec::new();
    for figure in &results.figures {
        match charts
            .iter_mut()
            .find(|chart| chart[0].shares_chart(figure))
        {
            Some(chart) => chart.push(figure),
            None => charts.push(vec![figure]),
        }
    }
    charts
}

fn chart_title(figure: &Figure) -> String {
    format!(
        "{}: {}: {}",
        figure.bench.as_str(),
        figure.place,
        figure.quantity
    )
}

fn figure_remarks(figure: &Figure) -> String {
    if figure.remarks.is_empty() {
        String::new()
    } else {
        format!("  ({})", figure.remarks.join("; "))
    }
}

fn remarks(result: &CellResult) -> String {
    let remarks = result.remarks();
    if remarks.is_empty() {
        String::new()
    } else {
        format!("  ({})", remarks.join("; "))
    }
}

pub(super) fn by_frame(results: &Results) -> BTreeMap<u32, Vec<&EnginePoint>> {
    let mut frames: BTreeMap<u32, Vec<&EnginePoint>> = BTreeMap::new();
    for point in &results.engine {
        frames.entry(point.frame_bytes).or_default().push(point);
    }
    frames
}

/// Two runs, for a terminal.
#[must_use]
pub fn comparison_text(first: &Results, second: &Results) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "first:  {}\nsecond: {}",
        heading(first),
        heading(second)
    );
    for doubt in doubts(first, second) {
        let _ = writeln!(out, "not the same: {doubt}");
    }
    let differences = compare(first, second);
    if differences.is_empty() {
        out.push_str("the runs have nothing in common\n");
    }
    for d in differences {
        let _ = writeln!(
            out,
            "{:42} {:>22} → {:>22} {:10} {:>6}  {}",
            d.what,
            range(&d.first),
            range(&d.second),
            d.unit,
            d.ratio()
                .map_or("-".to_owned(), |ratio| format!("{ratio:.2}×")),
            d.verdict.words(),
        );
    }
    out
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\">\
<style>\
body{font:15px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
table{border-collapse:collapse;font-size:.9em}td,th{padding:.2em .7em;text-align:left;\
border-bottom:1px solid #ddd}td.n{text-align:right;font-variant-numeric:tabular-nums}\
svg{width:100%;margin:.6em 0}svg text{font:13px system-ui,sans-serif;fill:currentColor}\
svg text.title{font-weight:600}svg line{stroke:#222;stroke-width:1.5}\
rect.kernel{fill:#9aa5b1}rect.in{fill:#4c8bd6}rect.out{fill:#3aa17e}rect.both{fill:#d9822b}\
rect.stage{fill:#8d7bc4}\
svg polyline{fill:none;stroke-width:2}svg line.grid{stroke:#ccc;stroke-width:1}.better{color:#1a7f4b}.worse{color:#b3261e}.quiet{color:#777}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}\
svg line{stroke:#ddd}td,th{border-color:#333}}\
</style>";

pub(super) fn pair_class(pair: Pair) -> &'static str {
    match (pair.client, pair.server) {
        (End::Kernel, End::Kernel) => "kernel",
        (End::Kernel, End::Braid) => "in",
        (End::Braid, End::Kernel) => "out",
        (End::Braid, End::Braid) => "both",
    }
}

fn subject_class(subject: &Subject) -> &'static str {
    match subject {
        Subject::Braid { .. } => "both",
        Subject::Smoltcp => "in",
        Subject::Memcpy { .. } => "kernel",
        Subject::Stage { .. } => "stage",
    }
}

/// A page; with a second run, its comparison with the first in front.
#[must_use]
pub fn html(first: &Results, second: Option<&Results>) -> String {
    let mut out = String::from(HEAD);
    out.push_str("<title>braid: benchmarks</title><h1>braid: benchmarks</h1>");
    if let Some(second) = second {
        html_comparison(&mut out, first, second);
        out.push_str("<h1>The second run</h1>");
        html_run(&mut out, second);
        out.push_str("<h1>The first run</h1>");
    }
    html_run(&mut out, first);
    out
}

fn html_run(out: &mut String, results: &Results) {
    let _ = write!(out, "<p>{}</p>", escape(&heading(results)));
    html_protocol(out, results);
    for (place, cells) in by_place(results) {
        let _ = write!(out, "<h2>{}</h2>", escape(&place));
        let bar = |result: &&CellResult| {
            Some(Bar {
                label: result.cell.pair.to_string().replace('-', " → "),
                class: pair_class(result.cell.pair),
                spread: result.gbit_per_s()?,
                note: ratio_words(results, result),
            })
        };
        out.push_str(&bars(
            "throughput",
            "Gb/s",
            &cells.iter().filter_map(bar).collect::<Vec<_>>(),
        ));
        let bar = |result: &&CellResult| {
            Some(Bar {
                label: result.cell.pair.to_string().replace('-', " → "),
                class: pair_class(result.cell.pair),
                spread: result.cpu_s_per_gib()?,
                note: String::new(),
            })
        };
        let cpu: Vec<_> = cells.iter().filter_map(bar).collect();
        out.push_str(&bars("processor time, whole machine", "s/GiB", &cpu));
        for result in cells {
            for remark in result.remarks() {
                let pair = result.cell.pair;
                let _ = write!(out, "<p class=\"quiet\">{pair}: {}</p>", escape(&remark));
            }
        }
    }
    for (frame_bytes, points) in by_frame(results) {
        let _ = write!(out, "<h2>engine, frames of {frame_bytes} bytes</h2>");
        let (stages, whole): (Vec<&EnginePoint>, Vec<&EnginePoint>) = points
            .into_iter()
            .partition(|point| matches!(point.subject, Subject::Stage { .. }));
        let bar = |point: &&EnginePoint| {
            Some(Bar {
                label: point.subject.to_string(),
                class: subject_class(&point.subject),
                spread: point.gbit_per_s?,
                note: format!("{} ns/packet", number(point.ns_per_packet.median)),
            })
        };
        out.push_str(&bars(
            "payload",
            "Gb/s",
            &whole.iter().filter_map(bar).collect::<Vec<_>>(),
        ));
        let bar = |point: &EnginePoint| Bar {
            label: point.subject.to_string(),
            class: subject_class(&point.subject),
            spread: point.ns_per_packet,
            note: String::new(),
        };
        let stages: Vec<_> = stages.into_iter().map(bar).collect();
        if !stages.is_empty() {
            out.push_str(&bars("parts by themselves", "ns/packet", &stages));
        }
    }
    html_figures(out, results);
}

/// A chart of bars per quantity, and of curves per place that has any.
fn html_figures(out: &mut String, results: &Results) {
    let mut place = String::new();
    for chart in charts(results) {
        let first = chart[0];
        let here = format!("{}: {}", first.bench.as_str(), first.place);
        if here != place {
            let _ = write!(out, "<h2>{}</h2>", escape(&here));
            let of_place = results
                .curves
                .iter()
                .filter(|curve| (curve.bench, &curve.place) == (first.bench, &first.place));
            let of_place: Vec<_> = of_place.collect();
            if !of_place.is_empty() {
                out.push_str(&curves("percentiles", &of_place));
            }
            place = here;
        }
        let bar = |figure: &&Figure| {
            Some(Bar {
                label: figure.subject.clone(),
                class: figure_class(figure),
                spread: figure.spread()?,
                note: figure.words(&results.figures),
            })
        };
        let drawn: Vec<_> = chart.iter().filter_map(bar).collect();
        out.push_str(&bars(&first.quantity, &first.unit, &drawn));
        for figure in chart.iter().filter(|figure| !figure.remarks.is_empty()) {
            let _ = write!(
                out,
                "<p class=\"quiet\">{}: {}</p>",
                escape(&figure.subject),
                escape(&figure.remarks.join("; "))
            );
        }
    }
}

fn figure_class(figure: &Figure) -> &'static str {
    if figure.yardstick {
        "kernel"
    } else if figure.bar.is_some() {
        "both"
    } else {
        "stage"
    }
}

fn html_protocol(out: &mut String, results: &Results) {
    let p = &results.protocol;
    out.push_str("<details><summary>How it was measured</summary><ul>");
    let mut items = vec![
        format!("command: {}", p.command),
        format!("congestion control: {}", p.congestion),
        format!("cores: peer {}, braid {}", p.peer_core, p.braid_core),
        format!("port mode: {}", p.mode),
        format!(
            "load average before: {}",
            number(results.machine.load_before)
        ),
        "bars are medians, lines go from the least to the most".to_owned(),
    ];
    if p.write_bytes > 0 {
        items.push(format!("writes of {} KiB", p.write_bytes >> 10));
    }
    items.extend(p.notes.iter().cloned());
    for item in items {
        let _ = write!(out, "<li>{}", escape(&item));
    }
    out.push_str("</ul></details>");
}

fn html_comparison(out: &mut String, first: &Results, second: &Results) {
    let _ = write!(
        out,
        "<p>First: {}<br>Second: {}</p>",
        escape(&heading(first)),
        escape(&heading(second))
    );
    for doubt in doubts(first, second) {
        let _ = write!(
            out,
            "<p class=\"worse\">Not the same: {}</p>",
            escape(&doubt)
        );
    }
    out.push_str("<table><tr><th>what<th>first<th>second<th>unit<th>ratio<th>verdict");
    for d in compare(first, second) {
        html_difference(out, &d);
    }
    out.push_str("</table>");
}

fn html_difference(out: &mut String, d: &Difference) {
    let class = match d.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifferenceShown | Verdict::TooFewRepeats => "quiet",
    };
    let _ = write!(
        out,
        "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{}<td>{}<td class=\"n\">{}\
         <td class=\"{class}\">{}",
        escape(&d.what),
        range(&d.first),
        range(&d.second),
        d.unit,
        d.ratio()
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        d.verdict.words(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::figure::tests::example as figures;
    use crate::benchmark::figure::{Bench, Curve};
    use crate::benchmark::results::tests::example;

    #[test]
    fn a_page_has_a_chart_per_place_and_needs_nothing_else() {
        let mut results = example(1.0);
        results.cells[1]
            .failures
            .push("<script>alert()</script>".to_owned());
        results.engine.push(EnginePoint::example());
        results.figures = figures();
        results.curves = vec![Curve {
            bench: Bench::Rr,
            place: results.figures[0].place.clone(),
            subject: "kernel".to_owned(),
            unit: "µs".to_owned(),
            points: vec![(50.0, 10.0), (99.0, 20.0)],
        }];
        let page = html(&results, None);
        // Four places of four bars each with throughput and processor time, one engine, and
        // one chart of figures below its curves.
        assert_eq!(page.matches("<svg").count(), 4 * 2 + 1 + 2);
        assert_eq!(page.matches("<rect class=\"kernel\"").count(), 4 * 2 + 1);
        assert_eq!(page.matches("<polyline").count(), 1);
        assert!(page.contains("0.50 × kernel (bar ≤ 0.6: met)"));
        assert!(page.contains("no &lt;luck&gt;") && page.contains("64 B &lt;x&gt;"));
        assert!(page.contains("× kernel"));
        assert!(page.contains("smoltcp, 1 core"));
        assert!(!page.contains("<script"), "what failed is text");
        assert!(!page.contains("http"), "nothing is loaded");
    }

    #[test]
    fn a_comparison_says_what_is_shown_and_what_not() {
        let (slow, fast) = (example(1.0), example(1.5));
        let page = html(&slow, Some(&fast));
        assert!(page.contains("class=\"better\">better"));
        assert!(comparison_text(&slow, &slow).contains("no difference shown"));
        assert!(comparison_text(&fast, &slow).contains("worse"));
        let mut empty = example(1.0);
        empty.cells.clear();
        assert!(comparison_text(&slow, &empty).contains("nothing in common"));
    }

    #[test]
    fn the_terminal_gets_every_cell() {
        let mut results = example(1.0);
        results.figures = figures();
        let text = text(&results);
        assert_eq!(text.matches("Gb/s").count(), results.cells.len());
        assert!(text.contains("rr: 64 B <x>: p50"), "{text}");
        assert!(
            text.contains("10 × kernel (bar") || text.contains("(bar ≤ 10: missed)"),
            "{text}"
        );
        assert!(text.contains("1.10 × kernel"), "{text}");
    }
}
