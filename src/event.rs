//! What a generation tells while it runs.

use crate::Error;
use std::time::Duration;
use terrace_runtime::{HostTensor, Session};

/// What happens during a generation.
pub enum Event<'a> {
    /// Something that the user should know.
    Warning(&'a str),
    /// A phase begins.
    Phase(Phase),
    /// A denoising step is done.
    Step(StepDone<'a>),
}

/// A phase of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Compiling the denoising step.
    Compile,
    /// Encoding the prompts.
    Encode,
    /// Loading the transformer's weights.
    Load,
    /// Denoising.
    Denoise,
    /// Decoding the latents.
    Decode,
}

/// A finished denoising step.
pub struct StepDone<'a> {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
    /// Time that the step took.
    pub took: Duration,
    pub(crate) session: &'a Session,
}

impl StepDone<'_> {
    /// The latents after this step, gathered from the ranks: `[1, f, c, h, w]`.
    ///
    /// # Errors
    /// As for [`Session::get`].
    pub fn latents(&self) -> Result<HostTensor, Error> {
        Ok(self.session.get("latents")?)
    }
}
