//! The noise table: the share of signal, squared, at every training step.
//!
//! The reference computes a table in the precision of its betas, so a single-precision table is
//! rounded after every operation here. Only the running product is kept in double precision, as
//! torch accumulates it.

use super::{BetaSchedule, SchedulerConfig};

/// Largest beta of the cosine schedule.
const BETA_CAP: f64 = 0.999;

/// Precision in which a table is kept.
#[derive(Clone, Copy)]
enum Precision {
    Single,
    Double,
}

impl Precision {
    fn round(self, value: f64) -> f64 {
        match self {
            Self::Single => f64::from(value as f32),
            Self::Double => value,
        }
    }
}

/// `alphas_cumprod` of the reference classes.
pub(super) fn alphas_cumprod(config: &SchedulerConfig) -> Vec<f64> {
    let (betas, precision) = betas(config);
    let mut product = 1.0;
    let mut alphas: Vec<f64> = betas
        .iter()
        .map(|beta| {
            product *= precision.round(1.0 - beta);
            shift(precision.round(product), config.snr_shift_scale, precision)
        })
        .collect();
    if config.rescale_betas_zero_snr {
        rescale(&mut alphas, precision);
    }
    alphas
}

fn betas(config: &SchedulerConfig) -> (Vec<f64>, Precision) {
    let (start, end) = (config.beta_start, config.beta_end);
    let count = config.num_train_timesteps;
    match &config.beta_schedule {
        BetaSchedule::Trained(betas) => (rounded(betas.iter().copied()), Precision::Single),
        BetaSchedule::Linear => {
            let single = Precision::Single;
            let values = linspace(single.round(start), single.round(end), count, single);
            (values, single)
        }
        BetaSchedule::ScaledLinear => {
            let double = Precision::Double;
            let roots = linspace(start.sqrt(), end.sqrt(), count, double);
            (roots.iter().map(|root| root * root).collect(), double)
        }
        BetaSchedule::SquaredCosine => (rounded(cosine_betas(count)), Precision::Single),
    }
}

fn rounded(values: impl Iterator<Item = f64>) -> Vec<f64> {
    values.map(|v| Precision::Single.round(v)).collect()
}

/// `torch.linspace`: counted from the nearer end.
fn linspace(start: f64, end: f64, count: usize, precision: Precision) -> Vec<f64> {
    let gaps = count.saturating_sub(1);
    let step = precision.round((end - start) / gaps.max(1) as f64);
    let offset = |index: usize| precision.round(step * index as f64);
    (0..count)
        .map(|i| {
            let value = if i < count / 2 || gaps == 0 {
                start + offset(i)
            } else {
                end - offset(gaps - i)
            };
            precision.round(value)
        })
        .collect()
}

/// Betas whose running product follows a squared cosine.
fn cosine_betas(count: usize) -> impl Iterator<Item = f64> {
    let signal = move |i: usize| {
        let t = i as f64 / count as f64;
        let angle = (t + 0.008) / 1.008 * std::f64::consts::PI / 2.0;
        angle.cos().powi(2)
    };
    (0..count).map(move |i| (1.0 - signal(i + 1) / signal(i)).min(BETA_CAP))
}

/// Divides the signal-to-noise ratio by `scale`.
fn shift(alpha: f64, scale: f64, precision: Precision) -> f64 {
    let slope = precision.round(1.0 - scale);
    let divisor = precision.round(scale + precision.round(slope * alpha));
    precision.round(alpha / divisor)
}

/// Leaves no signal at the last step and keeps the first: algorithm 1 of arXiv 2305.08891.
fn rescale(alphas: &mut [f64], precision: Precision) {
    let (Some(&first), Some(&last)) = (alphas.first(), alphas.last()) else {
        return;
    };
    let first = precision.round(first.sqrt());
    let last = precision.round(last.sqrt());
    let factor = precision.round(first / precision.round(first - last));
    for alpha in alphas {
        let root = precision.round(precision.round(alpha.sqrt()) - last);
        let root = precision.round(root * factor);
        *alpha = precision.round(root * root);
    }
}
