//! A machine that runs plans of a few kernels in f64: enough to see whether every element goes
//! where it should.

use std::collections::BTreeMap;
use terrace_plan::{
    Action, AttentionShape, BoxCopy, BufferId, Heads, KernelCall, Pattern, Plan, Rank, RankPlan,
    Slot, Stage, StridedBox,
};

/// The memory of one rank and its place in the list of steps.
struct Machine<'a> {
    plan: &'a RankPlan,
    buffers: Vec<Vec<f64>>,
    next: usize,
    /// Exchanges under way: pattern and destination.
    pending: BTreeMap<usize, (&'a Pattern, BufferId)>,
}

/// What ranks have published for an exchange.
type Published<'a> = BTreeMap<(usize, Rank), (&'a Pattern, Vec<f64>)>;

/// Runs a plan once; tensors by port name, in the order of the host tensor.
pub fn run(plan: &Plan, inputs: &BTreeMap<&str, Vec<f64>>) -> BTreeMap<String, Vec<f64>> {
    let mut machines: Vec<Machine<'_>> = plan.ranks.iter().map(Machine::new).collect();
    for machine in &mut machines {
        for (binding, port) in machine.plan.inputs.iter().zip(&plan.inputs) {
            let to = &mut machine.buffers[binding.buffer.0];
            copy(&binding.boxes, &inputs[port.name.as_str()], to);
        }
    }
    let mut published = Published::new();
    let mut moved = true;
    while moved {
        moved = false;
        for (rank, machine) in machines.iter_mut().enumerate() {
            moved |= machine.advance(plan, Rank(rank), &mut published);
        }
    }
    for machine in &machines {
        assert_eq!(machine.next, machine.plan.steps.len(), "a rank hangs");
    }
    let mut outputs = BTreeMap::new();
    for (index, port) in plan.outputs.iter().enumerate() {
        let mut whole = vec![f64::NAN; port.shape.iter().product()];
        for machine in &machines {
            let binding = &machine.plan.outputs[index];
            copy(
                &binding.boxes,
                &machine.buffers[binding.buffer.0],
                &mut whole,
            );
        }
        outputs.insert(port.name.clone(), whole);
    }
    outputs
}

impl<'a> Machine<'a> {
    fn new(plan: &'a RankPlan) -> Self {
        assert!(plan.init.is_empty());
        Self {
            plan,
            buffers: plan.buffers.iter().map(|b| vec![f64::NAN; b.len]).collect(),
            next: 0,
            pending: BTreeMap::new(),
        }
    }

    /// Runs until an exchange lacks a peer; whether anything was done.
    fn advance(&mut self, plan: &Plan, rank: Rank, published: &mut Published<'a>) -> bool {
        let start = self.next;
        while let Some(step) = self.plan.steps.get(self.next) {
            match &step.action {
                Action::Launch(call) => self.launch(call),
                Action::Exchange {
                    collective,
                    pattern,
                    src,
                    dst,
                } => {
                    let pattern = &self.plan.patterns[pattern.0];
                    let source = self.buffers[src.0].clone();
                    published.insert((collective.0, rank), (pattern, source));
                    self.pending.insert(collective.0, (pattern, *dst));
                }
                Action::Wait { collective } => {
                    let members = &plan.collectives[collective.0].members;
                    if !members
                        .iter()
                        .all(|&m| published.contains_key(&(collective.0, m)))
                    {
                        break;
                    }
                    self.deliver(collective.0, rank, published);
                }
                Action::Copy { src, dst, boxes } => {
                    let source = self.buffers[src.0].clone();
                    copy(boxes, &source, &mut self.buffers[dst.0]);
                }
                Action::Free { buffer } => self.buffers[buffer.0].fill(f64::NAN),
            }
            self.next += 1;
        }
        self.next > start
    }

    fn deliver(&mut self, collective: usize, rank: Rank, published: &Published<'_>) {
        let (pattern, dst) = self.pending.remove(&collective).unwrap();
        let to = &mut self.buffers[dst.0];
        copy(&pattern.local, &published[&(collective, rank)].1, to);
        for receive in &pattern.receives {
            let (theirs, source) = &published[&(collective, receive.peer)];
            let send = theirs.sends.iter().find(|s| s.peer == rank).unwrap();
            for (from, into) in send.boxes.iter().zip(&receive.boxes) {
                let values = places(from).into_iter().map(|at| source[at]);
                for (at, value) in places(into).into_iter().zip(values) {
                    to[at] = value;
                }
            }
        }
    }

    fn launch(&mut self, call: &KernelCall) {
        match call {
            KernelCall::Attention {
                shape, q, k, v, y, ..
            } => {
                let mut state =
                    vec![0.0; shape.batch * shape.q_rows * shape.heads * (shape.head_dim + 2)];
                self.attend(shape, [q, k, v], Stage::First, &mut state);
                self.finish(
                    shape.batch * shape.q_rows * shape.heads,
                    shape.head_dim,
                    &state,
                    y.slot,
                );
            }
            KernelCall::AttentionStep {
                shape,
                q,
                k,
                v,
                stage,
                state: place,
            } => {
                let mut state = self.buffers[place.buffer.0].clone();
                self.attend(shape, [q, k, v], *stage, &mut state);
                self.buffers[place.buffer.0] = state;
            }
            KernelCall::AttentionFinish {
                rows,
                heads,
                head_dim,
                state,
                y,
            } => {
                let state = self.buffers[state.buffer.0].clone();
                self.finish(rows * heads, *head_dim, &state, *y);
            }
            KernelCall::Denoise {
                len,
                uncond,
                pred,
                latents,
                y,
                ..
            } => {
                let read = |slot: Slot, i: usize| self.buffers[slot.buffer.0][slot.offset + i];
                let guided = |i| 3.0 * read(*pred, i) + uncond.map_or(0.0, |u| 5.0 * read(u, i));
                let values: Vec<f64> = (0..*len).map(|i| guided(i) + read(*latents, i)).collect();
                self.buffers[y.buffer.0][y.offset..y.offset + len].copy_from_slice(&values);
            }
            other => panic!("no kernel {}", other.name()),
        }
    }

    /// Softmax attention row by row; the state is accumulator, maximum and sum of each row.
    fn attend(&self, shape: &AttentionShape, views: [&Heads; 3], stage: Stage, state: &mut [f64]) {
        let d = shape.head_dim;
        let read = |view: usize, b: usize, row: usize, head: usize| {
            let v = views[view];
            let at = v.slot.offset + b * v.batch_stride + row * v.row_stride + head * v.head_stride;
            &self.buffers[v.slot.buffer.0][at..at + d]
        };
        let rows = (0..shape.batch).flat_map(|b| (0..shape.q_rows).map(move |row| (b, row)));
        let heads = rows.flat_map(|(b, row)| (0..shape.heads).map(move |head| (b, row, head)));
        for ((b, row, head), state) in heads.zip(state.chunks_mut(d + 2)) {
            if stage == Stage::First {
                state.fill(0.0);
                state[d] = f64::NEG_INFINITY;
            }
            for key in 0..shape.kv_rows {
                let pairs = read(0, b, row, head).iter().zip(read(1, b, key, head));
                let score = shape.scale * pairs.map(|(q, k)| q * k).sum::<f64>();
                let highest = score.max(state[d]);
                let (old, new) = ((state[d] - highest).exp(), (score - highest).exp());
                for (sum, value) in state.iter_mut().zip(read(2, b, key, head)) {
                    *sum = *sum * old + new * value;
                }
                state[d] = highest;
                state[d + 1] = state[d + 1] * old + new;
            }
        }
    }

    fn finish(&mut self, rows: usize, d: usize, state: &[f64], y: Slot) {
        let to = &mut self.buffers[y.buffer.0][y.offset..y.offset + rows * d];
        for (to, state) in to.chunks_mut(d).zip(state.chunks(d + 2)) {
            for (to, sum) in to.iter_mut().zip(state) {
                *to = sum / state[d + 1];
            }
        }
    }
}

fn copy(boxes: &[BoxCopy], from: &[f64], to: &mut [f64]) {
    for copy in boxes {
        for (src, dst) in places(&copy.src()).into_iter().zip(places(&copy.dst())) {
            to[dst] = from[src];
        }
    }
}

/// Every element of a box, in order.
fn places(region: &StridedBox) -> Vec<usize> {
    let mut places = vec![region.offset];
    for (&extent, &stride) in region.extents.iter().zip(&region.strides) {
        places = places
            .into_iter()
            .flat_map(|at| (0..extent).map(move |i| at + i * stride))
            .collect();
    }
    places
}
