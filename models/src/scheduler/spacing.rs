//! Which training steps a run visits.

use super::{SchedulerConfig, Spacing};
use crate::ModelError;

/// Time steps of a run, noisiest first: `set_timesteps` of the reference classes.
///
/// Halves round to even. Where the reference rounds trailing steps into one step more than asked
/// for, that step, at time -1, is left out.
pub(super) fn timesteps(config: &SchedulerConfig, steps: usize) -> Result<Vec<usize>, ModelError> {
    let trained = config.num_train_timesteps;
    if steps == 0 || steps > trained {
        return Err(ModelError::Size {
            what: "number of inference steps",
            found: steps,
            expected: format!("1 to {trained}"),
        });
    }
    let timesteps: Vec<usize> = match config.spacing {
        Spacing::Linspace => linspace(trained - 1, steps),
        Spacing::Leading => (0..steps)
            .rev()
            .map(|i| i * (trained / steps) + config.steps_offset)
            .collect(),
        Spacing::Trailing => trailing(trained, steps),
    };
    match timesteps.first() {
        Some(&timestep) if timestep >= trained => Err(ModelError::StepsOffset {
            offset: config.steps_offset,
            steps,
            timestep,
            last: trained - 1,
        }),
        _ => Ok(timesteps),
    }
}

fn linspace(last: usize, steps: usize) -> Vec<usize> {
    let step = last as f64 / (steps - 1).max(1) as f64;
    (0..steps)
        .rev()
        .map(|i| (i as f64 * step).round_ties_even() as usize)
        .collect()
}

/// As `numpy.arange` counts down: by the difference of its first two values.
fn trailing(trained: usize, steps: usize) -> Vec<usize> {
    let start = trained as f64;
    let step = (start - start / steps as f64) - start;
    (0..steps)
        .map(|i| (start + i as f64 * step).round_ties_even() as usize)
        .map(|end| end.saturating_sub(1))
        .collect()
}
