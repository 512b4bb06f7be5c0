//! The guidance scale of a step.
//!
//! Source: `CogVideoXPipeline.__call__` of diffusers 0.42.

/// Whether the guidance scale changes over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuidanceMode {
    /// The same at every step.
    #[default]
    Constant,
    /// `use_dynamic_cfg`: `1 + scale * (1 - cos(pi * ((steps - timestep) / steps)^5)) / 2`.
    Dynamic,
}

/// The scale of the step at `timestep` in a run of `steps` steps.
///
/// The dynamic formula subtracts a time step of training from a number of steps, as the reference
/// does.
pub fn guidance(scale: f64, mode: GuidanceMode, timestep: usize, steps: usize) -> f64 {
    match mode {
        GuidanceMode::Constant => scale,
        GuidanceMode::Dynamic => {
            let steps = steps as f64;
            let phase = ((steps - timestep as f64) / steps).powf(5.0);
            1.0 + scale * ((1.0 - (std::f64::consts::PI * phase).cos()) / 2.0)
        }
    }
}
