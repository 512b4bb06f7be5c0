//! Plans are untrusted: whatever their numbers are, reading, checking and explaining them gives a
//! result, soon, and without much memory.

use crate::build::{Spec, stack};
use crate::file::specs;
use proptest::prelude::*;
use serde_json::Value;
use terrace_plan::*;

/// What replaces a number or a whole value.
#[derive(Clone, Debug)]
enum Edit {
    Number(u64),
    Float(f64),
    Drop,
    Twice,
}

fn edits() -> impl Strategy<Value = Edit> {
    let edges = [
        0,
        1,
        2,
        3,
        63,
        64,
        65,
        1 << 20,
        u64::from(u32::MAX),
        1 << 40,
        i64::MAX as u64 / 4,
        i64::MAX as u64,
        u64::MAX / 2 + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![
        8 => proptest::sample::select(edges.to_vec()).prop_map(Edit::Number),
        4 => (0..100u64).prop_map(Edit::Number),
        1 => any::<u64>().prop_map(Edit::Number),
        1 => any::<f64>().prop_map(Edit::Float),
        1 => Just(Edit::Drop),
        1 => Just(Edit::Twice),
    ]
}

/// Every number of the value, and the lists that hold them.
fn leaves(value: &Value, path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    let mut visit = |index, value| {
        path.push(index);
        leaves(value, path, found);
        path.pop();
    };
    match value {
        Value::Array(list) => list.iter().enumerate().for_each(|(i, it)| visit(i, it)),
        Value::Object(map) => map.values().enumerate().for_each(|(i, it)| visit(i, it)),
        Value::Number(_) => found.push(path.clone()),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn at<'a>(value: &'a mut Value, path: &[usize]) -> &'a mut Value {
    path.iter().fold(value, |value, &index| match value {
        Value::Array(list) => &mut list[index],
        Value::Object(map) => map.values_mut().nth(index).unwrap(),
        other => panic!("{other} has no parts"),
    })
}

fn apply(value: &mut Value, path: &[usize], edit: &Edit) {
    match edit {
        Edit::Number(n) => *at(value, path) = Value::from(*n),
        Edit::Float(n) => *at(value, path) = Value::from(*n),
        Edit::Drop | Edit::Twice => {
            // The innermost list around the number.
            for depth in (0..path.len()).rev() {
                let index = path[depth];
                let Value::Array(list) = at(value, &path[..depth]) else {
                    continue;
                };
                if matches!(edit, Edit::Drop) {
                    list.remove(index);
                } else {
                    list.insert(index, list[index].clone());
                }
                return;
            }
        }
    }
}

/// Reads, checks and explains; nothing of it may panic.
fn survive(value: &Value) {
    let json = serde_json::to_vec(value).unwrap();
    let Ok(plan) = Plan::from_json(&json) else {
        return;
    };
    let _ = plan.check().map_err(|errors| errors.to_string());
    let explanation = explain::Explanation::of(&plan);
    let _ = (explanation.to_text(), explanation.to_dot());
    explanation.to_json().unwrap();
    for rank in 0..plan.ranks.len() {
        let _ = explain::steps(&plan, Rank(rank)).unwrap().to_text();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn edited_numbers_never_cause_a_panic(
        spec in specs(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), edits()), 1..4),
    ) {
        let mut value = serde_json::to_value(spec.plan()).unwrap();
        for (index, edit) in edits {
            let mut numbers = Vec::new();
            leaves(&value, &mut Vec::new(), &mut numbers);
            apply(&mut value, &numbers[index.index(numbers.len())], &edit);
        }
        survive(&value);
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC*", cut in any::<prop::sample::Index>()) {
        prop_assert!(Plan::from_json(text.as_bytes()).is_err());
        let mut json = Spec::two().plan().to_json().unwrap();
        let place = cut.index(json.len());
        json.splice(place..place, text.bytes());
        let _ = Plan::from_json(&json);
    }
}

#[test]
fn every_number_may_be_absurd() {
    let value = serde_json::to_value(Spec::two().plan()).unwrap();
    let mut numbers = Vec::new();
    leaves(&value, &mut Vec::new(), &mut numbers);
    for path in numbers {
        for n in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
            let mut edited = value.clone();
            *at(&mut edited, &path) = Value::from(n);
            survive(&edited);
        }
    }
}

#[test]
fn giant_tensors_cost_nothing() {
    let mut plan = Spec::one().plan();
    let len = 1usize << 58;
    let (buffers, bytes) = stack(Region::State, &[len; 2], 0);
    let rank = &mut plan.ranks[0];
    rank.buffers.extend(buffers);
    rank.state_bytes = bytes;
    // A port of 2^58 elements, delivered by two boxes that interleave.
    plan.outputs.push(Port {
        name: "huge".into(),
        dtype: DType::F32,
        shape: vec![len],
    });
    let half = |dst_offset| BoxCopy {
        extents: vec![len / 2],
        src_offset: 0,
        src_strides: vec![2],
        dst_offset,
        dst_strides: vec![2],
    };
    rank.outputs.push(Binding {
        port: 1,
        buffer: BufferId(9),
        boxes: vec![half(0), half(1)],
    });
    let errors = plan.check().unwrap_err();
    let texts: Vec<String> = errors.violations.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "rank 0: buffers 0 and 9 share bytes of the state",
            "rank 0: buffers 9 and 1 share bytes of the state",
            "rank 0: output `huge`: buffer 9 is not written, or is freed, at the end of the steps"
        ]
    );
}

#[test]
fn repeated_large_outputs_are_checked_in_bounded_time() {
    let mut plan = Spec::one().plan();
    let len = 1usize << 26;
    // Every element alone: the slowest way to mark them off.
    let every = |dst_offset| BoxCopy {
        extents: vec![len / 2],
        src_offset: 0,
        src_strides: vec![0],
        dst_offset,
        dst_strides: vec![2],
    };
    let buffer = plan.ranks[0].outputs[0].buffer;
    for index in 1..2000 {
        plan.outputs.push(Port {
            name: format!("output {index}"),
            dtype: DType::F32,
            shape: vec![len],
        });
        plan.ranks[0].outputs.push(Binding {
            port: index,
            buffer,
            boxes: vec![every(0), every(1)],
        });
    }
    let start = std::time::Instant::now();
    assert_eq!(plan.check(), Ok(()));
    // Unbounded, this would be 10^11 steps, an hour.
    assert!(start.elapsed().as_secs() < 60);
}
