//! What the commands print: text for people, or one JSON object per line for programs.
//!
//! Results go to standard output; progress, warnings and errors to standard error. In JSON everything
//! goes to standard output, each object with an `event`.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

/// Who reads what a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// People read text.
    Person,
    /// Programs read one JSON object per line.
    Program,
}

/// Where a command talks to.
pub struct Console {
    reader: Reader,
    bar: RefCell<Option<ProgressBar>>,
}

impl Console {
    /// A console for one kind of reader.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            bar: RefCell::new(None),
        }
    }

    /// Prints a result: `text` for people, `value` for programs.
    pub fn result(&self, text: &str, value: &Value) {
        self.finish();
        if self.reader == Reader::Program {
            write_out(&value.to_string());
        } else {
            write_out(text.trim_end());
        }
    }

    /// Prints an answer that already has its form.
    pub fn answer(&self, text: &str) {
        write_out(text.trim_end());
    }

    /// Prints what the user should know.
    pub fn warning(&self, text: &str) {
        if self.reader == Reader::Program {
            write_out(&json!({"event": "warning", "message": text}).to_string());
        } else {
            self.aside(&format!("warning: {text}"));
        }
    }

    /// Prints why a command could not do its work.
    pub fn error(&self, error: &dyn std::error::Error) {
        self.abandon();
        if self.reader == Reader::Program {
            write_out(&json!({"event": "error", "message": error.to_string()}).to_string());
        }
        write_err(&format!("error: {error}"));
    }

    /// Notes that a phase has begun.
    pub fn phase(&self, name: &str, text: &str) {
        self.finish();
        if self.reader == Reader::Program {
            write_out(&json!({"event": "phase", "phase": name}).to_string());
            return;
        }
        let bar = ProgressBar::new_spinner().with_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        *self.bar.borrow_mut() = Some(bar);
    }

    /// Notes that a step is done.
    pub fn step(&self, done: usize, steps: usize, took: Duration) {
        if self.reader == Reader::Program {
            let value = json!({
                "event": "step",
                "step": done,
                "steps": steps,
                "seconds": took.as_secs_f64(),
                "eta_seconds": took.as_secs_f64() * steps.saturating_sub(done) as f64,
            });
            write_out(&value.to_string());
            return;
        }
        let mut slot = self.bar.borrow_mut();
        let bar = match slot
            .as_ref()
            .filter(|bar| bar.length() == Some(steps as u64))
        {
            Some(bar) => bar.clone(),
            None => {
                if let Some(spinner) = slot.take() {
                    spinner.finish_and_clear();
                }
                let bar = ProgressBar::new(steps as u64).with_style(steps_style());
                slot.insert(bar).clone()
            }
        };
        bar.set_message(format!("{:.2} s/step", took.as_secs_f64()));
        bar.set_position(done as u64);
    }

    fn aside(&self, text: &str) {
        match self.bar.borrow().as_ref() {
            Some(bar) => bar.suspend(|| write_err(text)),
            None => write_err(text),
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn abandon(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.abandon();
        }
    }
}

/// A number of things, in words: `1 rank`, `4 ranks`.
pub fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn steps_style() -> ProgressStyle {
    ProgressStyle::with_template("step {pos}/{len} [{bar:30}] {msg}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn write_out(text: &str) {
    // A reader that has gone, as `head` does, is no error of ours.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn write_err(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
