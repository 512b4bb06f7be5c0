//! Attention and what prepares queries and keys.
//!
//! Heads are the factor `n`, their channels `d`. Packed queries, keys and values lie in one tensor
//! `[b, seq, c=(qkv=3 n d)]`, so that one exchange moves all three; a ring rotates
//! `[b, seq, c=(kv=2 n d)]`.

use super::{NormKind, OpError, Presence, Rule, arity, last, same_size};
use crate::ir::{Dim, Factor, Segment, Sharding, Slices, Type};
use terrace_plan::{DType, Stage};

/// How queries, keys and values are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Three operands.
    Separate,
    /// One operand with the factor `qkv=3`.
    Packed,
}

/// Rotary positions; operands `x[b, seq, c=(n d)], table[v=(t h w), r=(cs=2 d)]`.
/// The table's rows are those of the last segment of `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rope;

/// LayerNorm of q and k, and rotary positions, on packed qkv.
#[derive(Clone, Debug, PartialEq)]
pub struct QkNormRope {
    /// Norm of q, then of k; both take the same number of weight operands.
    pub norm: Option<NormKind>,
    /// Whether a position table is the last operand.
    pub rope: Presence,
}

/// Softmax attention over all rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Form of the operands.
    pub packing: Packing,
    /// Multiplier of the scores.
    pub scale: f64,
    /// Element type of the products, f32 or bf16; everything between them is f32.
    pub products: DType,
    /// Whether a bias `[n, q, k]` is the last operand.
    pub bias: Presence,
}

/// Attention to one block of keys; operands `qkv, kv, state?`; `kv` may be packed `qkv` too.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionStep {
    /// Multiplier of the scores.
    pub scale: f64,
    /// Element type of the products, f32 or bf16; everything between them is f32.
    pub products: DType,
    /// Whether the state is begun or merged into.
    pub stage: Stage,
}

impl Rope {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 2)?;
        check_table(operands[0], operands[1])?;
        Ok(operands[0].clone())
    }
}

impl QkNormRope {
    /// Number of norm operands: weights of q, then of k.
    pub fn norm_operands(&self) -> usize {
        self.norm.map_or(0, |n| 2 * n.weights())
    }

    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        let norms = self.norm_operands();
        arity(operands, 1 + norms + self.rope.count())?;
        let qkv = operands[0];
        let d = packed(qkv, "qkv", 3)?.1.size;
        for vector in &operands[1..1 + norms] {
            same_size("channels per head", d, vector.elements())?;
        }
        if self.rope == Presence::Present {
            check_table(qkv, operands[1 + norms])?;
        }
        Ok(qkv.clone())
    }
}

impl Attention {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        check_products(self.products)?;
        match self.packing {
            Packing::Packed => {
                arity(operands, 1 + self.bias.count())?;
                let (n, d) = packed(operands[0], "qkv", 3)?;
                Ok(with_channels(operands[0], vec![n, d]))
            }
            Packing::Separate => {
                arity(operands, 3 + self.bias.count())?;
                let (q, k, v) = (operands[0], operands[1], operands[2]);
                let heads = heads(q)?;
                for other in [k, v] {
                    if self::heads(other)? != heads || k.shape() != v.shape() {
                        return Err(OpError::new(
                            format!("keys and values with the heads of {q}"),
                            other.to_string(),
                        ));
                    }
                }
                Ok(q.clone())
            }
        }
    }
}

impl AttentionStep {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        check_products(self.products)?;
        let state = match self.stage {
            Stage::First => 0,
            Stage::Next => 1,
        };
        arity(operands, 2 + state)?;
        let (n, d) = packed(operands[0], "qkv", 3)?;
        let kv = packed(operands[1], "kv", 2).or_else(|_| packed(operands[1], "qkv", 3))?;
        if kv != (n.clone(), d.clone()) {
            return Err(OpError::new(
                format!("keys with the heads of {}", operands[0]),
                operands[1].to_string(),
            ));
        }
        let mut ty = operands[0].clone();
        ty.dims.pop();
        let state = Factor::new("state", d.size + 2);
        ty.dtype = DType::F32;
        ty.dims.push(Dim {
            name: "c".into(),
            segments: vec![Segment {
                factors: vec![n, state],
            }],
        });
        Ok(ty)
    }
}

/// LayerNorm over each head; operands `x[b, seq, c=(n d)], weight?, bias?`.
pub(super) fn infer_head_norm(kind: NormKind, operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 1 + kind.weights())?;
    let (_, d) = heads(operands[0])?;
    for vector in &operands[1..] {
        same_size("channels per head", d.size, vector.elements())?;
    }
    Ok(operands[0].clone())
}

/// Operand `state[b, seq, c=(n state=d+2)]`, result `[b, seq, c=(n d)]`.
pub(super) fn infer_finish(dtype: DType, operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 1)?;
    match last(operands[0])?.segments.as_slice() {
        [Segment { factors }] if factors.len() == 2 && factors[1].size > 2 => {
            let d = Factor::new("d", factors[1].size - 2);
            let ty = with_channels(operands[0], vec![factors[0].clone(), d]);
            Ok(Type::new(dtype, ty.dims))
        }
        _ => Err(OpError::new(
            "a running state [b, seq, c=(n state)]",
            operands[0].to_string(),
        )),
    }
}

/// Attention sees the rows of the whole ring position and a part of the heads.
pub(super) fn rule(operands: &[&Type], result: &Type, slices: &Slices) -> Rule {
    Rule {
        operands: operands
            .iter()
            .map(|ty| Sharding::of(ty, &slices.heads))
            .collect(),
        result: Sharding::of(result, &slices.heads),
    }
}

/// Heads and channels per head of `[.., c=(n d)]`.
pub(super) fn heads(ty: &Type) -> Result<(Factor, Factor), OpError> {
    match last(ty)?.segments.as_slice() {
        [Segment { factors }] if factors.len() == 2 => Ok((factors[0].clone(), factors[1].clone())),
        _ => Err(OpError::new("channels c=(n d)", ty.to_string())),
    }
}

/// Heads and channels per head of `[.., c=(name=count n d)]`.
pub(super) fn packed(ty: &Type, name: &str, count: usize) -> Result<(Factor, Factor), OpError> {
    match last(ty)?.segments.as_slice() {
        [Segment { factors }] if factors.len() == 3 && factors[0] == Factor::new(name, count) => {
            Ok((factors[1].clone(), factors[2].clone()))
        }
        _ => Err(OpError::new(
            format!("packed channels c=({name}={count} n d)"),
            ty.to_string(),
        )),
    }
}

/// `ty` with its last dimension replaced by `c=(factors)`.
pub(super) fn with_channels(ty: &Type, factors: Vec<Factor>) -> Type {
    let mut ty = ty.clone();
    ty.dims.pop();
    ty.dims.push(Dim {
        name: "c".into(),
        segments: vec![Segment { factors }],
    });
    ty
}

fn check_products(products: DType) -> Result<(), OpError> {
    match products {
        DType::F32 | DType::Bf16 => Ok(()),
        DType::F16 | DType::U32 | DType::I8 | DType::F8E4M3 => {
            Err(OpError::new("products in f32 or bf16", products.name()))
        }
    }
}

fn check_table(x: &Type, table: &Type) -> Result<(), OpError> {
    let fits = match (x.dims.as_slice(), table.dims.as_slice()) {
        ([_, seq, c], [rows, columns]) => {
            let d = c.factors().last().map_or(0, |f| f.size);
            seq.segments.last() == rows.segments.last()
                && rows.segments.len() == 1
                && columns.size() == 2 * d
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(OpError::new(
        format!("a table of two channels' values for the video rows of {x}"),
        table.to_string(),
    ))
}
