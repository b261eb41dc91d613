//! A study's figures as a Markdown table and as an SVG chart of bars.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use plotters::prelude::*;

/// The samples of one competitor in one row, one per seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Of at least one seed.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "a figure has samples");
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The middle one (the upper one of two).
    #[must_use]
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.0[0]
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// One measure of one scenario, for all competitors.
#[derive(Clone, Debug)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// What is measured, in which unit.
    pub measure: &'static str,
    /// What theory says.
    pub expected: &'static str,
    /// In the order of [`Study::competitors`].
    pub samples: Vec<Samples>,
}

/// The result of a study.
#[derive(Clone, Debug)]
pub struct Study {
    /// File name without extension, and the command's word.
    pub name: &'static str,
    /// Heading.
    pub title: &'static str,
    /// Markdown between heading and table.
    pub preface: &'static str,
    /// What is compared.
    pub competitors: Vec<&'static str>,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Study {
    /// The whole document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "# {}\n\n{}\n\nRegenerate with `braid-bench sim-report {} --write bench/docs`.\n\n",
            self.title, self.preface, self.name
        );
        let mut line = |cells: Vec<String>| {
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        };
        let fixed = ["scenario", "measure", "theory"].map(str::to_owned);
        let names = self.competitors.iter().map(|c| (*c).to_owned());
        line(fixed.into_iter().chain(names).collect());
        let left = std::iter::repeat_n("---".to_owned(), 3);
        let right = std::iter::repeat_n("---:".to_owned(), self.competitors.len());
        line(left.chain(right).collect());
        for row in &self.rows {
            let fixed = [row.scenario, row.measure, row.expected].map(str::to_owned);
            let figures = row.samples.iter().map(|s| {
                let (median, min, max) = (s.median(), s.min(), s.max());
                format!("**{median:.2}** ({min:.2}–{max:.2})")
            });
            line(fixed.into_iter().chain(figures).collect());
        }
        let _ = writeln!(out, "\n![{}]({}.svg)", self.title, self.name);
        out
    }

    /// A panel per row, a bar per competitor: medians, and lines from least to most.
    ///
    /// # Errors
    /// The drawing library's.
    pub fn svg(&self) -> Result<String, Box<dyn std::error::Error>> {
        const COLUMNS: usize = 2;
        const PANEL: (u32, u32) = (460, 250);
        let lines = self.rows.len().div_ceil(COLUMNS);
        let size = (
            PANEL.0 * u32::try_from(COLUMNS)?,
            PANEL.1 * u32::try_from(lines)?,
        );
        let mut out = String::new();
        {
            let root = SVGBackend::with_string(&mut out, size).into_drawing_area();
            root.fill(&WHITE)?;
            let panels = root.split_evenly((lines, COLUMNS));
            for (row, panel) in self.rows.iter().zip(&panels) {
                self.draw(row, panel)?;
            }
            root.present()?;
        }
        Ok(out)
    }

    fn draw(
        &self,
        row: &Row,
        panel: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let top = row.samples.iter().map(Samples::max).fold(0.0, f64::max);
        let count = self.competitors.len();
        let mut chart = ChartBuilder::on(panel)
            .caption(
                format!("{}: {}", row.scenario, row.measure),
                ("sans-serif", 14),
            )
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(40)
            .build_cartesian_2d(0.0..count as f64, 0.0..top * 1.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .y_labels(6)
            .draw()?;
        for (i, (name, samples)) in self.competitors.iter().zip(&row.samples).enumerate() {
            let x = i as f64;
            let color = Palette99::pick(i).mix(0.8).filled();
            let middle = x + 0.5;
            chart.draw_series([Rectangle::new(
                [(x + 0.2, 0.0), (x + 0.8, samples.median())],
                color,
            )])?;
            chart.draw_series([PathElement::new(
                [(middle, samples.min()), (middle, samples.max())],
                BLACK.stroke_width(1),
            )])?;
            let (px, py) = chart.backend_coord(&(middle, 0.0));
            let (ox, oy) = panel.get_base_pixel();
            let style = ("sans-serif", 13).into_text_style(panel);
            let style = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Top,
            ));
            panel.draw_text(name, &style, (px - ox, py - oy + 6))?;
        }
        Ok(())
    }

    /// Writes both documents.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let svg = self
            .svg()
            .map_err(|e| io::Error::other(format!("chart: {e}")))?;
        fs::write(dir.join(self.name).with_extension("md"), self.markdown())?;
        fs::write(dir.join(self.name).with_extension("svg"), svg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_range() {
        let s = Samples::new(vec![3.0, 1.0, 2.0]);
        assert_eq!((s.min(), s.median(), s.max()), (1.0, 2.0, 3.0));
    }

    #[test]
    fn documents_name_everything() {
        let study = Study {
            name: "x",
            title: "Title",
            preface: "Why.",
            competitors: vec!["one", "two"],
            rows: vec![Row {
                scenario: "road",
                measure: "speed",
                expected: "fast",
                samples: vec![Samples::new(vec![1.0, 2.0]), Samples::new(vec![0.5])],
            }],
        };
        let table = study.markdown();
        assert!(table.contains("| scenario | measure | theory | one | two |\n"));
        assert!(
            table.contains(
                "| road | speed | fast | **2.00** (1.00–2.00) | **0.50** (0.50–0.50) |\n"
            )
        );
        let svg = study.svg().unwrap();
        for word in ["road: speed", "one", "two"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
