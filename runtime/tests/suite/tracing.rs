//! Traces, read back as the JSON that Perfetto opens.

use crate::common::{counting, gather_plan, options, positions_plan, text};
use serde_json::Value;
use std::sync::Arc;
use terrace_plan::{Plan, Region};
use terrace_runtime::{Checkpoint, Cpu, Session, SessionOptions, Trace, WeightCache};

fn traced(plan: Plan, trace: &Arc<Trace>, runs: usize) {
    let options = SessionOptions {
        trace: Some(Arc::clone(trace)),
        ..options()
    };
    let cache = WeightCache::new();
    let plan = Arc::new(plan);
    let mut session =
        Session::new(Arc::new(Cpu), plan, &Checkpoint::empty(), &cache, options).unwrap();
    let shape = session.plan().inputs[0].shape.clone();
    session.set("x", &counting(&shape)).unwrap();
    for _ in 0..runs {
        session.run().unwrap();
    }
}

fn events(trace: &Trace) -> Vec<Value> {
    let file: Value = serde_json::from_slice(&trace.to_json().unwrap()).unwrap();
    assert_eq!(file["displayTimeUnit"], "ms");
    file["traceEvents"].as_array().unwrap().clone()
}

#[test]
fn every_step_of_every_rank_is_recorded() {
    let trace = Arc::new(Trace::new());
    assert!(trace.is_empty());
    traced(gather_plan(&[2, 3]), &trace, 2);
    assert_eq!(trace.len(), 2 * 2 * 4);
    let events = events(&trace);
    for rank in 0..2 {
        let of_rank = events.iter().filter(|event| event["tid"] == rank);
        let (names, steps): (Vec<&Value>, Vec<&Value>) =
            of_rank.partition(|event| event["ph"] == "M");
        assert_eq!(names.len(), 1);
        assert_eq!(names[0]["name"], "thread_name");
        assert_eq!(names[0]["args"]["name"], format!("rank {rank}"));
        let expected = [
            ("gate_add", "kernel", "ff"),
            ("begin", "exchange", "attn1"),
            ("all_gather", "exchange", "attn1"),
            ("copy", "copy", "norm_out"),
        ];
        assert_eq!(steps.len(), 8);
        let mut end = 0.0;
        for (event, (name, category, origin)) in steps.iter().zip(expected.repeat(2)) {
            assert_eq!(event["ph"], "X");
            assert_eq!(event["name"], name);
            assert_eq!(event["cat"], category);
            assert_eq!(event["args"]["origin"], origin);
            assert_eq!(event["args"]["graph"], "gather");
            let (ts, dur) = (
                event["ts"].as_f64().unwrap(),
                event["dur"].as_f64().unwrap(),
            );
            assert!(ts >= end && dur >= 0.0, "{event}");
            // Times are in thousandths of a microsecond, and doubles.
            end = ts + dur - 0.01;
        }
        // The wait says how much it received.
        assert_eq!(steps[2]["args"]["bytes"], [12, 8][rank]);
    }
}

#[test]
fn one_trace_covers_several_sessions() {
    let trace = Arc::new(Trace::new());
    traced(positions_plan(Region::State), &trace, 3);
    traced(gather_plan(&[1]), &trace, 1);
    // Two steps once, one step per run; four steps.
    assert_eq!(trace.len(), 2 + 3 + 4);
    let graphs: Vec<Value> = events(&trace)
        .iter()
        .filter(|event| event["ph"] == "X")
        .map(|event| event["args"]["graph"].clone())
        .collect();
    assert_eq!(graphs[0], "positions");
    assert_eq!(graphs[8], "gather");
}

#[test]
fn a_trace_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Arc::new(Trace::new());
    traced(gather_plan(&[1]), &trace, 1);
    let path = folder.path().join("t.json");
    trace.write(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), trace.to_json().unwrap());
    let missing = folder.path().join("none").join("t.json");
    assert_eq!(
        text(trace.write(&missing)),
        format!(
            "cannot write {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    assert!(!missing.exists());
}
