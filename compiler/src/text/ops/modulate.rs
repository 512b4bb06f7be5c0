//! `norm %0 kind=layer eps=1e-5 affine=weight chunks=[shift=0 scale=1]`, `norm %0 kind=rms eps=1e-6`,
//! `modulate %0 %1 chunks=[..]`, `residual %0 %1 %2 gates=[2, 5]`, `head_norm %0 kind=..`.

use super::{Attributes, Line};
use crate::CompileError;
use crate::ops::{Affine, ModChunks, Norm, NormKind};
use crate::text::reader::Reader;
use crate::text::value::{Value, words};

words!(Affine {
    Affine::None => "none",
    Affine::Weight => "weight",
    Affine::WeightBias => "weight_bias",
});

impl Attributes for Norm {
    fn write(&self, line: &mut Line<'_>) {
        self.kind.write(line);
        if let Some(chunks) = &self.modulate {
            line.key("chunks", chunks);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            kind: Attributes::read(from)?,
            modulate: from.optional("chunks")?,
        })
    }
}

impl Attributes for NormKind {
    fn write(&self, line: &mut Line<'_>) {
        match self {
            Self::Layer { eps, affine } => {
                line.word("kind=layer");
                line.key("eps", eps);
                line.key("affine", affine);
            }
            Self::Rms { eps } => {
                line.word("kind=rms");
                line.key("eps", eps);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        from.expect_word("kind")?;
        from.expect('=')?;
        match from.word_of(&[("layer", true), ("rms", false)])? {
            true => Ok(Self::Layer {
                eps: from.key("eps")?,
                affine: from.key("affine")?,
            }),
            false => Ok(Self::Rms {
                eps: from.key("eps")?,
            }),
        }
    }
}

impl Value for ModChunks {
    fn write(&self, out: &mut String) {
        out.push_str("shift=");
        self.shift.write(out);
        out.push_str(" scale=");
        self.scale.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            shift: from.key("shift")?,
            scale: from.key("scale")?,
        })
    }
}

/// Gates of a residual.
impl Attributes for Option<Vec<usize>> {
    fn write(&self, line: &mut Line<'_>) {
        if let Some(gates) = self {
            line.key("gates", gates);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        from.optional("gates")
    }
}
