//! Traces: what every rank did when, as a file that Perfetto and `chrome://tracing` open.
//!
//! Invariants: ranks collect their events alone and hand them over once per run, so tracing takes no
//! lock between steps; a session without a trace takes no time stamps. One trace may cover several
//! sessions. Format: the Trace Event Format's JSON object with complete events (`"ph": "X"`).

use crate::RuntimeError;
use crate::safetensors_io::write_file;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use terrace_plan::Rank;

/// Events of all ranks of one or more sessions.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    events: Mutex<Vec<Event>>,
}

/// One step of one rank.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) rank: Rank,
    pub(crate) name: &'static str,
    pub(crate) category: &'static str,
    pub(crate) graph: Arc<str>,
    pub(crate) origin: Arc<str>,
    pub(crate) bytes: u64,
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            events: Mutex::default(),
        }
    }
}

impl Trace {
    /// An empty trace; its time begins now.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing was traced.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The trace as JSON; times are microseconds since the trace was made.
    ///
    /// # Errors
    /// When an event cannot be expressed in JSON, which no event of a plan is.
    pub fn to_json(&self) -> Result<Vec<u8>, RuntimeError> {
        let events = self.lock();
        let ranks: BTreeSet<usize> = events.iter().map(|event| event.rank.0).collect();
        let names = ranks.into_iter().map(Line::name_of);
        let spans = events.iter().map(|event| self.line(event));
        let file = File {
            display_time_unit: "ms",
            trace_events: names.chain(spans).collect(),
        };
        serde_json::to_vec(&file).map_err(|source| RuntimeError::Trace { source })
    }

    /// Writes the trace to `path`, replacing the file as a whole.
    ///
    /// # Errors
    /// When the file cannot be written; none is left behind then.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), RuntimeError> {
        write_file(path.as_ref(), &self.to_json()?)
    }

    pub(crate) fn add(&self, events: Vec<Event>) {
        self.lock().extend(events);
    }

    fn line<'a>(&self, event: &'a Event) -> Line<'a> {
        let micros = |time: Instant| time.duration_since(self.begun).as_nanos() as f64 / 1e3;
        let begin = micros(event.begin);
        Line {
            name: event.name,
            cat: event.category,
            ph: "X",
            pid: 0,
            tid: event.rank.0,
            ts: begin,
            dur: Some(micros(event.end) - begin),
            args: Args::Step {
                origin: &event.origin,
                graph: &event.graph,
                bytes: event.bytes,
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        // Events are only appended, so a panic elsewhere leaves them sound.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "displayTimeUnit")]
    display_time_unit: &'a str,
    #[serde(rename = "traceEvents")]
    trace_events: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    cat: &'a str,
    ph: &'a str,
    pid: usize,
    tid: usize,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    args: Args<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Args<'a> {
    Thread {
        name: String,
    },
    Step {
        origin: &'a str,
        graph: &'a str,
        bytes: u64,
    },
}

impl Line<'_> {
    /// The metadata event that names the track of a rank.
    fn name_of(rank: usize) -> Self {
        Self {
            name: "thread_name",
            cat: "__metadata",
            ph: "M",
            pid: 0,
            tid: rank,
            ts: 0.0,
            dur: None,
            args: Args::Thread {
                name: format!("rank {rank}"),
            },
        }
    }
}
