//! Coefficients of one step from the noise table.

use super::Prediction;

/// Shares of signal, squared, around one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alphas {
    /// At the step.
    pub(super) now: f64,
    /// At the end of the step.
    pub(super) next: f64,
    /// At the step before; absent: the step is of first order.
    pub(super) back: Option<f64>,
}

/// `[c0, c1]` of `x0 = c0 * latents + c1 * prediction`.
pub(super) fn denoise(prediction: Prediction, alphas: &Alphas) -> [f64; 2] {
    let (signal, noise) = (alphas.now.sqrt(), (1.0 - alphas.now).sqrt());
    match prediction {
        Prediction::Epsilon => [1.0 / signal, -noise / signal],
        Prediction::Sample => [0.0, 1.0],
        Prediction::Velocity => [signal, -noise],
    }
}

/// `[c2, c3, c4, c5]` of DDIM without noise: formula (12) of arXiv 2010.02502.
pub(super) fn ddim(alphas: &Alphas) -> [f64; 4] {
    let latents = ((1.0 - alphas.next) / (1.0 - alphas.now)).sqrt();
    let clean = alphas.next.sqrt() - alphas.now.sqrt() * latents;
    [latents, clean, 0.0, 0.0]
}

/// `[c2, c3, c4, c5]` of the SDE form of DPM-Solver++ (2M): section 4.2 of arXiv 2211.01095.
///
/// Infinite log ratios are legal: without noise at the end the step returns the clean latents.
pub(super) fn dpm(alphas: &Alphas) -> [f64; 4] {
    let now = log_ratio(alphas.now);
    let h = log_ratio(alphas.next) - now;
    let remaining = 1.0 - alphas.next;
    let latents = (remaining / (1.0 - alphas.now)).sqrt() * (-h).exp();
    let clean = -(-2.0 * h).exp_m1() * alphas.next.sqrt();
    let noise = remaining.sqrt() * (1.0 - (-2.0 * h).exp()).sqrt();
    let Some(back) = alphas.back else {
        return [latents, clean, 0.0, noise];
    };
    let r = (now - log_ratio(back)) / h;
    let extrapolation = 1.0 / (2.0 * r);
    [
        latents,
        clean * (1.0 + extrapolation),
        -clean * extrapolation,
        noise,
    ]
}

/// Logarithm of the ratio of signal to noise.
fn log_ratio(alpha: f64) -> f64 {
    (alpha / (1.0 - alpha)).sqrt().ln()
}
