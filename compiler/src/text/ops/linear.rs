//! `linear %0 %1 %2 out=[c=8] bias epilogue=silu`; other epilogues are `residual` and
//! `gated_residual[2, 5]`, one chunk of the modulation per segment.

use super::{Attributes, Line};
use crate::CompileError;
use crate::ir::Dim;
use crate::ops::{Linear, LinearEpilogue};
use crate::text::reader::Reader;
use crate::text::value::Value;

impl Attributes for Linear {
    fn write(&self, line: &mut Line<'_>) {
        write_out(&self.out, line);
        line.flag("bias", self.bias);
        match &self.epilogue {
            LinearEpilogue::None => {}
            LinearEpilogue::Activate(_)
            | LinearEpilogue::Residual
            | LinearEpilogue::GatedResidual(_) => line.key("epilogue", &self.epilogue),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            out: read_out(from)?,
            bias: from.flag("bias"),
            epilogue: from.optional("epilogue")?.unwrap_or(LinearEpilogue::None),
        })
    }
}

impl Value for LinearEpilogue {
    fn write(&self, out: &mut String) {
        match self {
            Self::None => out.push_str("none"),
            Self::Activate(function) => function.write(out),
            Self::Residual => out.push_str("residual"),
            Self::GatedResidual(gates) => {
                out.push_str("gated_residual");
                gates.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        if from.take_word("none") {
            return Ok(Self::None);
        }
        if from.take_word("residual") {
            return Ok(Self::Residual);
        }
        if from.take_word("gated_residual") {
            return from.value().map(Self::GatedResidual);
        }
        from.value().map(Self::Activate)
    }
}

/// `out=[c=8]`, the dimension that an op gives its result.
pub(super) fn write_out(out: &Dim, line: &mut Line<'_>) {
    line.word("out=[");
    out.write(line.text);
    line.text.push(']');
}

/// The inverse of [`write_out`].
pub(super) fn read_out(from: &mut Reader<'_>) -> Result<Dim, CompileError> {
    from.expect_word("out")?;
    from.expect('=')?;
    from.expect('[')?;
    let out = from.value()?;
    from.expect(']')?;
    Ok(out)
}
