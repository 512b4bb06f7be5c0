//! The Terrace compiler: a graph IR, its verifier and the passes that turn a model graph into a
//! [`terrace_plan::Plan`].
//!
//! A [graph](ir::Graph) is made of [ops] over types whose dimensions are sums of segments and products
//! of named factors. [`compile`] runs the [passes](passes::pipeline::names) in order and
//! [verifies](verify::verify) the graph after each; `observe` sees every state, which
//! [prints](text::print) as text and [parses](text::parse) back.
//!
//! ```
//! use terrace_compiler::{CompileOptions, Provenance, SliceGranularity, compile, text};
//! use terrace_plan::{DType, Fingerprint, Mesh};
//!
//! // Attention over two words and 2 x 3 cells, with three heads, and a residual sum.
//! let graph = text::parse(r#"
//! mesh <cfg=1 ring=1 ulysses=1>
//! graph block stage=model {
//!   %0 = input "x" host=[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)] : f32[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)]   ; x
//!   %1 = weight layout=linear from=["q" [12, 12]] : f32[o=12, i=12]   ; q
//!   %2 = linear %0 %1 out=[c=(n=3 d=4)] : f32[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)]   ; q
//!   %3 = weight layout=linear from=["k" [12, 12]] : f32[o=12, i=12]   ; k
//!   %4 = linear %0 %3 out=[c=(n=3 d=4)] : f32[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)]   ; k
//!   %5 = weight layout=linear from=["v" [12, 12]] : f32[o=12, i=12]   ; v
//!   %6 = linear %0 %5 out=[c=(n=3 d=4)] : f32[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)]   ; v
//!   %7 = attention %2 %4 %6 separate scale=0.5 : f32[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)]   ; attn
//!   %8 = output %7 "y" host=[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)] : f32[b=1, seq=(txt=2 | t=1 h=2 w=3), c=(n=3 d=4)]   ; y
//! }
//! "#)?;
//! let mesh = Mesh { cfg: 1, ring: 1, ulysses: 3 };
//! let (dtype, activations) = (DType::F32, DType::F32);
//! let options = CompileOptions { mesh, granularity: SliceGranularity::Cell, dtype, activations };
//! let provenance = Provenance {
//!     producer: "example".into(),
//!     fingerprint: Fingerprint {
//!         model: "block".into(),
//!         shape: "2 + 2x3".into(),
//!         dtype: DType::F32,
//!         mesh: mesh.to_string(),
//!         kernels: "none".into(),
//!     },
//!     request: "{}".into(),
//! };
//! let mut sharded = String::new();
//! let plan = compile(graph, &options, &provenance, &mut |pass, graph| {
//!     if pass == "lower-reshards" {
//!         sharded = text::print(graph);
//!     }
//! })?;
//! assert!(sharded.contains("= all_to_all %"));
//! assert_eq!(plan.ranks.len(), 3);
//! # Ok::<(), terrace_compiler::CompileError>(())
//! ```

mod compile;
mod error;
pub mod ir;
pub mod layout;
pub mod ops;
mod options;
pub mod partition;
pub mod passes;
pub mod text;
pub mod verify;

pub use compile::compile;
pub use error::CompileError;
pub use options::{CompileOptions, Provenance, SliceGranularity};
