//! Traces: what every rank did when, as a file that Perfetto and `chrome://tracing` open.
//!
//! Invariants: ranks collect their events alone and hand them over once per run, so tracing takes no
//! lock between steps; a session without a trace takes no time stamps. One trace may cover several
//! sessions. Format: the Trace Event Format's JSON object with complete events (`"ph": "X"`).

use crate::RuntimeError;
use crate::program::Ready;
use crate::safetensors_io::write_file;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use terrace_plan::{Plan, Rank};

/// Events of all ranks of one or more sessions.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    events: Mutex<Vec<Event>>,
}

/// One step of one rank.
#[derive(Clone, Debug)]
struct Event {
    rank: Rank,
    name: &'static str,
    category: &'static str,
    graph: Arc<str>,
    origin: Arc<str>,
    bytes: u64,
    begin: Instant,
    end: Instant,
}

/// What the ranks of a session need to record their steps.
#[derive(Debug)]
pub(crate) struct Tracing {
    trace: Arc<Trace>,
    graph: Arc<str>,
    origins: Vec<Arc<str>>,
}

impl Tracing {
    pub(crate) fn new(trace: Arc<Trace>, plan: &Plan) -> Self {
        Self {
            trace,
            graph: plan.header.graph.as_str().into(),
            origins: plan.origins.iter().map(|o| o.as_str().into()).collect(),
        }
    }
}

/// The events of one rank during one call.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    tracing: Option<&'a Tracing>,
    rank: Rank,
    events: Vec<Event>,
}

impl<'a> Recorder<'a> {
    /// A recorder with room for `steps` events; without `tracing` it does nothing.
    pub(crate) fn new(tracing: Option<&'a Tracing>, rank: Rank, steps: usize) -> Self {
        Self {
            tracing,
            rank,
            events: Vec::with_capacity(tracing.map_or(0, |_| steps)),
        }
    }

    /// The time at which a step begins.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.tracing.map(|_| Instant::now())
    }

    /// Records a step that has ended.
    pub(crate) fn end<L>(&mut self, ready: &Ready<L>, begin: Option<Instant>) {
        let Some((tracing, begin)) = self.tracing.zip(begin) else {
            return;
        };
        let origin = tracing.origins.get(ready.origin).unwrap_or(&tracing.graph);
        self.events.push(Event {
            rank: self.rank,
            name: ready.name,
            category: ready.category,
            graph: Arc::clone(&tracing.graph),
            origin: Arc::clone(origin),
            bytes: ready.bytes,
            begin,
            end: Instant::now(),
        });
    }

    /// Hands the events over.
    pub(crate) fn deliver(self) {
        if let Some(tracing) = self.tracing {
            tracing.trace.add(self.events);
        }
    }
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

    fn add(&self, events: Vec<Event>) {
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
