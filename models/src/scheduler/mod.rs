//! Schedulers: `CogVideoXDDIMScheduler` and `CogVideoXDPMScheduler` as numbers per step.
//!
//! A step is `x0 = c0 * latents + c1 * v` and
//! `next = c2 * latents + c3 * x0 + c4 * previous + c5 * noise`, where `v` is the guided prediction,
//! `previous` the `x0` of the step before and `noise` standard normal. The noise table is computed
//! in the precision of the reference, the coefficients in f64. Refused: another class, unknown
//! fields, step counts that the table does not hold, and steps that divide by zero.
//!
//! Source: `scheduling_ddim_cogvideox.py` and `scheduling_dpm_cogvideox.py` of diffusers 0.42.

mod config;
mod guidance;
mod noise_table;
mod spacing;
mod update;

pub use config::{BetaSchedule, Prediction, SchedulerConfig, Spacing};
pub use guidance::{GuidanceMode, guidance};

use crate::ModelError;
use terrace_compiler::ops::{Presence, Sources};
use update::Alphas;

/// Rule by which latents advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerKind {
    /// DDIM without noise.
    Ddim,
    /// The stochastic second-order DPM-Solver++ (SDE, 2M).
    Dpm,
}

/// A scheduler with its noise table.
#[derive(Clone, Debug)]
pub struct Scheduler {
    kind: SchedulerKind,
    config: SchedulerConfig,
    alphas: Vec<f64>,
    final_alpha: f64,
}

/// One denoising step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Time step that the transformer is given.
    pub timestep: usize,
    /// `c0 .. c5` of the formulas above.
    pub coefficients: [f32; 6],
}

impl SchedulerKind {
    /// The class that serves this kind in diffusers.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Ddim => "CogVideoXDDIMScheduler",
            Self::Dpm => "CogVideoXDPMScheduler",
        }
    }
}

impl Scheduler {
    /// Reads the text of a `scheduler_config.json`; `file` names it in errors. `kind` replaces the
    /// rule that the file names and keeps its fields.
    ///
    /// # Errors
    /// The config is of another class, has unknown keys or asks for what is not served.
    pub fn from_json(
        file: &str,
        text: &str,
        kind: Option<SchedulerKind>,
    ) -> Result<Self, ModelError> {
        let (named, config) = SchedulerConfig::from_json(file, text)?;
        let alphas = noise_table::alphas_cumprod(&config);
        let first = alphas.first().copied().unwrap_or(1.0);
        let final_alpha = if config.set_alpha_to_one { 1.0 } else { first };
        Ok(Self {
            kind: kind.unwrap_or(named),
            config,
            alphas,
            final_alpha,
        })
    }

    /// The rule.
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// The fields of the config.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Share of signal, squared, at every training step.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas
    }

    /// What the update reads besides the latents. Where a step does not use a source, its
    /// coefficient is zero, so the source must be finite.
    pub fn sources(&self) -> Sources {
        let presence = match self.kind {
            SchedulerKind::Ddim => Presence::Absent,
            SchedulerKind::Dpm => Presence::Present,
        };
        Sources {
            previous: presence,
            noise: presence,
        }
    }

    /// Time steps of a run of `steps` steps, noisiest first.
    ///
    /// # Errors
    /// `steps` is zero or more than the table has, or the offset leads beyond the table.
    pub fn timesteps(&self, steps: usize) -> Result<Vec<usize>, ModelError> {
        spacing::timesteps(&self.config, steps)
    }

    /// Every step of a run of `steps` steps.
    ///
    /// # Errors
    /// As for [`Scheduler::timesteps`], or a step divides by zero.
    pub fn steps(&self, steps: usize) -> Result<Vec<Step>, ModelError> {
        let timesteps = self.timesteps(steps)?;
        let stride = self.config.num_train_timesteps / steps;
        let mut back = None;
        let mut run = Vec::with_capacity(steps);
        for timestep in timesteps {
            let next = timestep.checked_sub(stride);
            let alphas = Alphas {
                now: self.alphas[timestep],
                next: next.map_or(self.final_alpha, |t| self.alphas[t]),
                // The last step is of first order.
                back: back.filter(|_| next.is_some()),
            };
            back = Some(alphas.now);
            run.push(Step {
                timestep,
                coefficients: self.coefficients(&alphas, timestep)?,
            });
        }
        Ok(run)
    }

    fn coefficients(&self, alphas: &Alphas, timestep: usize) -> Result<[f32; 6], ModelError> {
        let [c0, c1] = update::denoise(self.config.prediction, alphas);
        let [c2, c3, c4, c5] = match self.kind {
            SchedulerKind::Ddim => update::ddim(alphas),
            SchedulerKind::Dpm => update::dpm(alphas),
        };
        let coefficients = [c0, c1, c2, c3, c4, c5].map(|c| c as f32);
        if coefficients.iter().all(|c| c.is_finite()) {
            return Ok(coefficients);
        }
        Err(ModelError::SingularStep {
            scheduler: self.kind.class(),
            prediction: self.config.prediction.name(),
            timestep,
        })
    }
}
