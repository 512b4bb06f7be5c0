//! Terrace: video diffusion transformers, compiled ahead of time, on any number of ranks.
//!
//! A [`Model`] is a CogVideoX checkpoint, a [`Pipeline`] turns prompts into frames. What is computed is
//! compiled first: a [`Request`] names a model part, a size and a mesh and becomes a [`Plan`], plain
//! data that can be saved, inspected ([`explain`]), checked and run later.
//!
//! ```no_run
//! use terrace::{GenerateRequest, Model, Pipeline, video};
//!
//! let pipeline = Pipeline::new(Model::open("CogVideoX-2b")?);
//! let mut request = GenerateRequest::new(pipeline.model(), "a panda playing a guitar")?;
//! request.degrees.ranks = Some(3);
//! let generated = pipeline.generate(&request, &mut |_| {})?;
//! println!("{:?}", generated.frames.shape());
//! # Ok::<(), terrace::Error>(())
//! ```
//!
//! Compiling needs no weights and no device:
//!
//! ```
//! use terrace::{GenerateRequest, Model, explain::Explanation, step_request};
//!
//! let model = Model::demo()?;
//! let mut request = GenerateRequest::new(&model, "")?;
//! request.degrees.ranks = Some(4);
//! let plan = step_request(&model, &request)?.compile()?;
//! assert_eq!(plan.mesh.to_string(), "cfg=2 ring=1 ulysses=2");
//! println!("{}", Explanation::of(&plan));
//! # Ok::<(), terrace::Error>(())
//! ```

pub mod bench;
mod degrees;
mod device;
mod error;
mod event;
mod fabric;
mod forward;
mod generate;
mod model;
mod pipeline;
mod precision;
mod request;
mod runner;
pub mod tensors;
pub mod video;

pub use degrees::{Degrees, Extents};
pub use device::Device;
pub use error::Error;
pub use event::{Event, Phase, StepDone};
pub use fabric::Fabric;
pub use forward::{Cut, ForwardInputs};
pub use generate::{GenerateRequest, Generated, Prompts, Sampling, step_request};
pub use model::Model;
pub use pipeline::{Denoised, Pipeline, decode_request};
pub use precision::Precision;
pub use request::{Activations, Granularity, Guidance, Part, Request, Solver};
pub use runner::Runner;
pub use terrace_compiler::ir::Graph;
pub use terrace_models::folder::Component;
pub use terrace_models::scheduler::GuidanceMode;
pub use terrace_models::size::VideoSize;
pub use terrace_plan::{Mesh, Plan, Rank, explain};
pub use terrace_runtime::{HostTensor, Session, SessionOptions, Trace, World};
