//! A bar with the time left.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Steps of known cost, drawn on standard error; a line per step where that is no terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    /// Of `steps` steps.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        use std::io::IsTerminal;
        let plain = !std::io::stderr().is_terminal();
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        let template = "{bar:30} {pos}/{len}  {eta} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, plain }
    }

    /// A step begins.
    pub fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// It has ended; `result` is for those who see no bar.
    pub fn end(&self, result: &str) {
        self.bar.inc(1);
        if self.plain {
            let left = self.bar.eta().as_secs();
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("{done}/{all} ({left} s left) {result}");
        }
    }

    /// Above the bar.
    pub fn say(&self, line: &str) {
        if self.plain {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
