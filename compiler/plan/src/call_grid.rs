//! The operands of kernels over frames and over whole latents.

use crate::call_use::{Uses, at_least_one, epsilon, product};
use crate::{CallError, ConvShape, KernelCall, Slot, UpsampleTime};

impl KernelCall {
    /// Kernels over frames, and over whole latents.
    pub(crate) fn grid_operands(&self, u: &mut Uses) -> Result<(), CallError> {
        match self {
            Self::Conv3d {
                shape,
                x,
                cache,
                residual,
                y,
                ..
            } => conv3d(u, shape, *x, *cache, *residual, *y),
            Self::ConvCache { .. } => self.conv_cache(u),
            Self::GroupNorm { .. } => self.group_norm(u),
            Self::Upsample {
                batch,
                grid: [t, h, w],
                channels,
                time,
                x,
                y,
            } => {
                let frames = match time {
                    UpsampleTime::Keep => *t,
                    UpsampleTime::Double => product("y", &[*t, 2])? - t % 2,
                };
                u.read("x", *x, &[*batch, *t, *h, *w, *channels])?;
                u.write("y", *y, &[*batch, frames, *h, 2, *w, 2, *channels], &[])
            }
            Self::Denoise { .. } => self.denoise(u),
            Self::Advance { .. } => self.advance(u),
            Self::Linear { .. } | Self::NormModulate { .. } | Self::GateAdd { .. } => Ok(()),
            Self::QkNormRope { .. } | Self::Attention { .. } | Self::AttentionStep { .. } => Ok(()),
            Self::AttentionFinish { .. } | Self::Activate { .. } | Self::GatedGelu { .. } => Ok(()),
            Self::Cast { .. } => Ok(()),
            Self::Embedding { .. } | Self::RelativeBias { .. } | Self::TimestepEmbedding { .. } => {
                Ok(())
            }
            Self::PositionTable { .. } | Self::Join { .. } | Self::Noise { .. } => Ok(()),
        }
    }

    fn conv_cache(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::ConvCache {
            batch,
            frames,
            frame_len,
            keep,
            x,
            cache,
            y,
        } = self
        else {
            return Ok(());
        };
        if cache.is_none() {
            at_least_one(&[("frames", *frames)])?;
        }
        u.read("x", *x, &[*batch, *frames, *frame_len])?;
        if let Some(cache) = cache {
            u.read("cache", *cache, &[*batch, *keep, *frame_len])?;
        }
        u.write("y", *y, &[*batch, *keep, *frame_len], &[])
    }

    fn denoise(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::Denoise {
            len,
            uncond,
            pred,
            latents,
            coefficients,
            y,
        } = self
        else {
            return Ok(());
        };
        if let Some(uncond) = uncond {
            u.read_f32("uncond", *uncond, &[*len])?;
        }
        u.read_f32("pred", *pred, &[*len])?;
        u.read_f32("latents", *latents, &[*len])?;
        u.read_f32("coefficients", *coefficients, &[7])?;
        u.write_f32("y", *y, &[*len])
    }

    fn advance(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::Advance {
            len,
            latents,
            x0,
            previous,
            noise,
            coefficients,
            y,
        } = self
        else {
            return Ok(());
        };
        u.read_f32("latents", *latents, &[*len])?;
        u.read_f32("x0", *x0, &[*len])?;
        for (name, slot) in [("previous", previous), ("noise", noise)] {
            if let Some(slot) = slot {
                u.read_f32(name, *slot, &[*len])?;
            }
        }
        u.read_f32("coefficients", *coefficients, &[7])?;
        u.write_f32("y", *y, &[*len])
    }

    fn group_norm(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::GroupNorm {
            batch,
            grid,
            channels,
            groups,
            eps,
            spatial,
            x,
            y,
            ..
        } = self
        else {
            return Ok(());
        };
        let (channels, groups) = (*channels, *groups);
        at_least_one(&[("channels", channels), ("groups", groups)])?;
        epsilon(*eps)?;
        if channels % groups != 0 {
            return Err(CallError::Groups { channels, groups });
        }
        let [t, h, w] = *grid;
        u.read("x", *x, &[*batch, t, h, w, channels])?;
        if let Some(spatial) = spatial {
            let [t, h, w] = spatial.grid;
            at_least_one(&[("yb frames", t), ("yb height", h), ("yb width", w)])?;
            u.read("yb", spatial.yb, &[*batch, t, h, w, 2, channels])?;
        }
        u.write("y", *y, &[*batch, t, h, w, channels], &["x"])
    }
}

fn conv3d(
    u: &mut Uses,
    shape: &ConvShape,
    x: Slot,
    cache: Option<Slot>,
    residual: Option<Slot>,
    y: Slot,
) -> Result<(), CallError> {
    let ConvShape {
        batch,
        grid: [t, h, w],
        cin,
        cout,
        kernel: [kt, kh, kw],
    } = *shape;
    at_least_one(&[
        ("cin", cin),
        ("cout", cout),
        ("kt", kt),
        ("kh", kh),
        ("kw", kw),
    ])?;
    if kh % 2 == 0 || kw % 2 == 0 {
        return Err(CallError::EvenKernel {
            height: kh,
            width: kw,
        });
    }
    product("weight", &[cout, cin, kt, kh, kw])?;
    u.read("x", x, &[batch, t, h, w, cin])?;
    if let Some(cache) = cache {
        u.read("cache", cache, &[batch, kt - 1, h, w, cin])?;
    }
    if let Some(residual) = residual {
        u.read("residual", residual, &[batch, t, h, w, cout])?;
    }
    u.write("y", y, &[batch, t, h, w, cout], &[])
}
