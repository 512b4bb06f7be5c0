//! The text form of a graph: one node per line, dense numbers in graph order, type and cut always
//! shown, the model path last. `parse(print(g)) == g`.
//!
//! ```text
//! mesh <cfg=1 ring=2 ulysses=2>
//! graph block stage=scheduled order=fixed {
//!   slices rows {h=30 w=45: ring,ulysses[0 338 675 1013 1350]}
//!   slices heads {h=30 w=45: ring[0 675 1350], n=30: ulysses[0 15 30]}
//!   %0 = input "tokens" host=[b=2, seq=(t=13 h=30 w=45), c=64] : f32[b=2, seq=(t=13 h=30 w=45), c=64] @{h.w: ring,ulysses[0 338 675 1013 1350]}   ; tokens
//!   %1 = weight layout=plain from=["g" [64]] : f32[o=64] @{} init   ; norm
//! }
//! ```
//!
//! `order=fixed` marks a schedule, `init` a node that runs once per session. Types are inferred
//! again on parsing, and a line that shows another type is refused. At stage `local` types are
//! those of one rank's parts, which no op infers: there they are taken as written. A line without
//! `@{..}` is not cut. Refused with line and column: unknown ops, attributes out of order, operands
//! that no line before defines, numbers of 2^32 and more, types of 2^48 elements and more.

mod lex;
mod ops;
mod parse;
mod print;
mod reader;
mod value;

pub(crate) use lex::is_word;
pub use parse::parse;
pub(crate) use print::Lines;
pub use print::print;
