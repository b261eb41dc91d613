//! Results as files of the repository: tables in Markdown, and charts that it can show.

use std::fmt::Write;
use std::path::Path;

use super::benchmark::{by_frame, by_place, charts, heading, pair_class, ratio_words};
use super::chart::{Bar, bars, curves, escape, number, range};
use crate::benchmark::figure::{Bench, Figure};
use crate::benchmark::results::{CellResult, Results};
use crate::failure;
use crate::testbed::Result;

/// What the charts of a page get from its head.
const STYLE: &str = "<style>\
text{font:13px system-ui,sans-serif;fill:#444}text.title{font-weight:600}\
line{stroke:#444;stroke-width:1.5}line.grid{stroke:#ccc;stroke-width:1}\
polyline{fill:none;stroke-width:2}\
rect.kernel{fill:#9aa5b1}rect.in{fill:#4c8bd6}rect.out{fill:#3aa17e}rect.both{fill:#d9822b}\
@media(prefers-color-scheme:dark){text{fill:#ccc}line{stroke:#ccc}line.grid{stroke:#444}}\
</style>";

/// Writes `benchmark.md` and its charts.
///
/// # Errors
/// A file could not be written.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    let save = |name: &str, text: &str| {
        let file = directory.join(name);
        std::fs::write(&file, text).map_err(|e| failure!("{}: {e}", file.display()))
    };
    save("benchmark.md", &markdown(results))?;
    if let Some(chart) = throughput(results) {
        save("benchmark-throughput.svg", &chart)?;
    }
    if let Some(chart) = latency(results) {
        save("benchmark-latency.svg", &chart)?;
    }
    Ok(())
}

/// An SVG of a page as a file of its own.
fn standalone(svg: &str) -> String {
    let begin = "<svg xmlns=\"http://www.w3.org/2000/svg\" ";
    let mut out = svg.replacen("<svg ", begin, 1);
    if let Some(end) = out.find('>') {
        out.insert_str(end + 1, STYLE);
    }
    out.push('\n');
    out
}

/// All cells in one chart, place by place.
fn throughput(results: &Results) -> Option<String> {
    let bar = |result: &CellResult| {
        Some(Bar {
            label: format!(
                "{} {}",
                result.cell.place(),
                initials(&result.cell.pair.to_string())
            ),
            class: pair_class(result.cell.pair),
            spread: result.gbit_per_s()?,
            note: ratio_words(results, result),
        })
    };
    let drawn: Vec<Bar> = by_place(results)
        .into_values()
        .flatten()
        .filter_map(bar)
        .collect();
    (!drawn.is_empty()).then(|| standalone(&bars("throughput, client to server", "Gb/s", &drawn)))
}

/// `kernel-braid` as `k-b`.
fn initials(pair: &str) -> String {
    pair.split('-')
        .filter_map(|end| end.get(..1))
        .collect::<Vec<_>>()
        .join("-")
}

/// Percentiles of the first load.
fn latency(results: &Results) -> Option<String> {
    let first = results.curves.iter().find(|c| c.bench == Bench::Rr)?;
    let of_place: Vec<_> = results
        .curves
        .iter()
        .filter(|c| (c.bench, &c.place) == (first.bench, &first.place))
        .collect();
    Some(standalone(&curves(
        &format!("{}: percentiles", first.place),
        &of_place,
    )))
}

fn markdown(results: &Results) -> String {
    let mut out = format!(
        "# Benchmarks\n\nWritten by `braid-bench report FILE --write bench/docs` from what\n`{}`\nand the commands below it wrote. {}.\n\
         Medians [least–most]; *ratio*: to the kernel in the same run; *bar*: what the\nproject has promised itself.\n",
        results.protocol.command,
        heading(results)
    );
    for note in &results.protocol.notes {
        let _ = writeln!(out, "- {note}");
    }
    cells(&mut out, results);
    engine(&mut out, results);
    figures(&mut out, results);
    out
}

fn cells(out: &mut String, results: &Results) {
    if results.cells.is_empty() {
        return;
    }
    out.push_str(
        "\n## Throughput\n\n![throughput](benchmark-throughput.svg)\n\n\
         *CPU*: seconds of the whole machine per GiB (user, system and interrupts).\n\n\
         | offloads and MTU / paths / DSS checksum / direction | client-server | Gb/s | ratio | CPU | remarks |\n\
         |---|---|---:|---:|---:|---|\n",
    );
    for (place, cells) in by_place(results) {
        for result in cells {
            let ratio = results.ratio_to_kernel(result.cell);
            let _ = writeln!(
                out,
                "| {place} | {} | {} | {} | {} | {} |",
                result.cell.pair,
                result.gbit_per_s().map_or("-".to_owned(), |s| range(&s)),
                ratio.map_or(String::new(), |r| format!("{r:.2}")),
                result
                    .cpu_s_per_gib()
                    .map_or("-".to_owned(), |s| number(s.median)),
                escape(&result.remarks().join("; ")),
            );
        }
    }
}

fn engine(out: &mut String, results: &Results) {
    if results.engine.is_empty() {
        return;
    }
    out.push_str(
        "\n## The engine alone\n\nMemory ports; ns per data packet and end.\n\n\
         | frame, bytes | what | Gb/s | ns/packet |\n|---:|---|---:|---:|\n",
    );
    for (frame_bytes, points) in by_frame(results) {
        for point in points {
            let _ = writeln!(
                out,
                "| {frame_bytes} | {} | {} | {} |",
                point.subject,
                point.gbit_per_s.map_or("-".to_owned(), |s| range(&s)),
                range(&point.ns_per_packet),
            );
        }
    }
}

fn figures(out: &mut String, results: &Results) {
    let mut bench = None;
    for chart in charts(results) {
        let first = chart[0];
        if bench != Some(first.bench) {
            bench = Some(first.bench);
            let _ = writeln!(out, "\n## {}\n", first.bench.as_str());
            if first.bench == Bench::Rr && !results.curves.is_empty() {
                out.push_str("![percentiles](benchmark-latency.svg)\n\n");
            }
            out.push_str("| where | what | who | value | judged |\n|---|---|---|---:|---|\n");
        }
        for figure in chart {
            row(out, results, figure);
        }
    }
}

fn row(out: &mut String, results: &Results, figure: &Figure) {
    let mut judged = figure.words(&results.figures);
    if !figure.remarks.is_empty() {
        let _ = write!(judged, " ({})", figure.remarks.join("; "));
    }
    let _ = writeln!(
        out,
        "| {} | {}, {} | {} | {} | {} |",
        escape(&figure.place),
        figure.quantity,
        figure.unit,
        escape(&figure.subject),
        figure.spread().map_or("-".to_owned(), |s| range(&s)),
        escape(judged.trim()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::engine::EnginePoint;
    use crate::benchmark::figure::tests::example as figures;
    use crate::benchmark::results::tests::example;

    #[test]
    fn tables_hold_every_figure() {
        let mut results = example(1.0);
        results.engine.push(EnginePoint::example());
        results.figures = figures();
        let text = markdown(&results);
        let rows = text.lines().filter(|l| l.starts_with("| ")).count();
        let headings = text.lines().filter(|l| l.starts_with("|---")).count();
        let charts = results.figures.len();
        assert_eq!(rows, headings + results.cells.len() + 1 + charts, "{text}");
        assert!(!text.contains("<x>"), "{text}");
        let chart = throughput(&results).unwrap();
        assert_eq!(chart.matches("<rect").count(), results.cells.len());
    }

    #[test]
    fn a_chart_of_a_page_becomes_a_file_of_its_own() {
        let svg = standalone("<svg viewBox=\"0 0 1 1\"><text>a</text></svg>");
        assert!(
            svg.starts_with(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1 1\"><style>"
            ),
            "{svg}"
        );
        assert!(svg.ends_with("</style><text>a</text></svg>\n"), "{svg}");
        assert_eq!(initials("kernel-braid"), "k-b");
    }
}
