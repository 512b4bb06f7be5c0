//! The fields of `scheduler_config.json`.
//!
//! `clip_sample`, `clip_sample_range` and `sample_max_value` are read by no step of either class and
//! change nothing.

use super::SchedulerKind;
use crate::ModelError;
use crate::config::ConfigFile;

/// How betas grow over training steps.
#[derive(Clone, Debug, PartialEq)]
pub enum BetaSchedule {
    /// Evenly, in single precision.
    Linear,
    /// Their square roots grow evenly, in double precision.
    ScaledLinear,
    /// From a squared cosine, capped.
    SquaredCosine,
    /// As listed, in single precision.
    Trained(Vec<f64>),
}

/// What the transformer predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The clean latents.
    Sample,
    /// The velocity.
    Velocity,
}

/// How the steps of a run are spread over training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Evenly, both ends included.
    Linspace,
    /// Multiples of the ratio, from the cleanest end.
    Leading,
    /// Multiples of the ratio, from the noisiest end.
    Trailing,
}

/// A scheduler config; defaults are those of the reference classes.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// Length of the noise table.
    pub num_train_timesteps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// Betas between.
    pub beta_schedule: BetaSchedule,
    /// Whether the last step ends without noise.
    pub set_alpha_to_one: bool,
    /// Added to every time step of leading spacing.
    pub steps_offset: usize,
    /// What the transformer predicts.
    pub prediction: Prediction,
    /// Spread of the steps.
    pub spacing: Spacing,
    /// Whether the noisiest step has no signal.
    pub rescale_betas_zero_snr: bool,
    /// Divisor of the signal-to-noise ratio.
    pub snr_shift_scale: f64,
}

impl Prediction {
    /// The value of `prediction_type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Sample => "sample",
            Self::Velocity => "v_prediction",
        }
    }
}

impl SchedulerConfig {
    /// Reads the text of a config and the kind that it names.
    ///
    /// # Errors
    /// The config is of another class, has unknown keys or asks for what is not served.
    pub fn from_json(file: &str, text: &str) -> Result<(SchedulerKind, Self), ModelError> {
        let mut fields = ConfigFile::parse(file, text)?;
        let [ddim, dpm] = [SchedulerKind::Ddim, SchedulerKind::Dpm];
        let named = fields.class(&[ddim.class(), dpm.class()])?;
        let kind = if named == dpm.class() { dpm } else { ddim };
        fields.skip(&["clip_sample", "clip_sample_range", "sample_max_value"]);
        let config = Self {
            num_train_timesteps: fields.take("num_train_timesteps", 1000)?,
            beta_start: fields.take("beta_start", 0.00085)?,
            beta_end: fields.take("beta_end", 0.012)?,
            beta_schedule: beta_schedule(&mut fields)?,
            set_alpha_to_one: fields.take("set_alpha_to_one", true)?,
            steps_offset: fields.take("steps_offset", 0)?,
            prediction: prediction(&mut fields)?,
            spacing: spacing(&mut fields)?,
            rescale_betas_zero_snr: fields.take("rescale_betas_zero_snr", false)?,
            snr_shift_scale: fields.take("snr_shift_scale", 3.0)?,
        };
        config.check(&fields)?;
        fields.finish()?;
        Ok((kind, config))
    }

    fn check(&self, fields: &ConfigFile) -> Result<(), ModelError> {
        if self.num_train_timesteps == 0 {
            return Err(fields.unsupported("num_train_timesteps", 0, "at least 1"));
        }
        match &self.beta_schedule {
            BetaSchedule::Trained(betas) if betas.len() != self.num_train_timesteps => {
                let expected = format!("{} betas", self.num_train_timesteps);
                Err(fields.unsupported("trained_betas", betas.clone(), &expected))
            }
            BetaSchedule::Trained(_)
            | BetaSchedule::Linear
            | BetaSchedule::ScaledLinear
            | BetaSchedule::SquaredCosine => Ok(()),
        }
    }
}

fn beta_schedule(fields: &mut ConfigFile) -> Result<BetaSchedule, ModelError> {
    let trained: Option<Vec<f64>> = fields.take("trained_betas", None)?;
    let name: String = fields.take("beta_schedule", "scaled_linear".to_owned())?;
    if let Some(betas) = trained {
        return Ok(BetaSchedule::Trained(betas));
    }
    match name.as_str() {
        "linear" => Ok(BetaSchedule::Linear),
        "scaled_linear" => Ok(BetaSchedule::ScaledLinear),
        "squaredcos_cap_v2" => Ok(BetaSchedule::SquaredCosine),
        _ => {
            let served = "linear, scaled_linear, squaredcos_cap_v2";
            Err(fields.unsupported("beta_schedule", name, served))
        }
    }
}

fn prediction(fields: &mut ConfigFile) -> Result<Prediction, ModelError> {
    let name: String = fields.take("prediction_type", "epsilon".to_owned())?;
    let all = [
        Prediction::Epsilon,
        Prediction::Sample,
        Prediction::Velocity,
    ];
    all.into_iter().find(|p| p.name() == name).ok_or_else(|| {
        let served = "epsilon, sample, v_prediction";
        fields.unsupported("prediction_type", name, served)
    })
}

fn spacing(fields: &mut ConfigFile) -> Result<Spacing, ModelError> {
    let name: String = fields.take("timestep_spacing", "leading".to_owned())?;
    match name.as_str() {
        "linspace" => Ok(Spacing::Linspace),
        "leading" => Ok(Spacing::Leading),
        "trailing" => Ok(Spacing::Trailing),
        _ => Err(fields.unsupported("timestep_spacing", name, "linspace, leading, trailing")),
    }
}
