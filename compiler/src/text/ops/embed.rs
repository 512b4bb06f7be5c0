//! `embedding %0 %1 out=[c=8]`, `relative_bias %0 rows=4 buckets=32 max_distance=128`,
//! `timestep_embedding %0 out=[c=8] order=cos_sin shift=0.0`,
//! `position_table rotary theta=10000.0 columns=[t dim=4 start=0.0 step=1.0, ..] rows=[..] out=[..]`.

use super::linear::{read_out, write_out};
use super::{Attributes, Line};
use crate::CompileError;
use crate::ops::{Embedding, PositionTable, RelativeBias, TimestepEmbedding};
use crate::text::reader::Reader;
use crate::text::value::{Value, words};
use terrace_plan::{GridAxis, PositionColumns, PositionKind, SinusoidOrder};

words!(SinusoidOrder {
    SinusoidOrder::SinCos => "sin_cos",
    SinusoidOrder::CosSin => "cos_sin",
});

words!(GridAxis {
    GridAxis::T => "t",
    GridAxis::H => "h",
    GridAxis::W => "w",
});

impl Attributes for Embedding {
    fn write(&self, line: &mut Line<'_>) {
        write_out(&self.out, line);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            out: read_out(from)?,
        })
    }
}

impl Attributes for RelativeBias {
    fn write(&self, line: &mut Line<'_>) {
        line.key("rows", &self.rows);
        line.key("buckets", &self.buckets);
        line.key("max_distance", &self.max_distance);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            rows: from.key("rows")?,
            buckets: from.key("buckets")?,
            max_distance: from.key("max_distance")?,
        })
    }
}

impl Attributes for TimestepEmbedding {
    fn write(&self, line: &mut Line<'_>) {
        write_out(&self.out, line);
        line.key("order", &self.order);
        line.key("shift", &self.shift);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            out: read_out(from)?,
            order: from.key("order")?,
            shift: from.key("shift")?,
        })
    }
}

impl Attributes for PositionTable {
    fn write(&self, line: &mut Line<'_>) {
        match &self.kind {
            PositionKind::SinCos => line.word("sin_cos"),
            PositionKind::Rotary { theta } => {
                line.word("rotary");
                line.key("theta", theta);
            }
        }
        line.key("columns", &self.columns);
        line.word("rows=[");
        self.rows.write(line.text);
        line.text.push(']');
        write_out(&self.out, line);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let kind = match from.word_of(&[("sin_cos", false), ("rotary", true)])? {
            false => PositionKind::SinCos,
            true => PositionKind::Rotary {
                theta: from.key("theta")?,
            },
        };
        let columns = from.key("columns")?;
        from.expect_word("rows")?;
        from.expect('=')?;
        from.expect('[')?;
        let rows = from.value()?;
        from.expect(']')?;
        Ok(Self {
            kind,
            columns,
            rows,
            out: read_out(from)?,
        })
    }
}

impl Value for PositionColumns {
    fn write(&self, out: &mut String) {
        self.axis.write(out);
        out.push_str(" dim=");
        self.dim.write(out);
        out.push_str(" start=");
        self.start.write(out);
        out.push_str(" step=");
        self.step.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            axis: from.value()?,
            dim: from.key("dim")?,
            start: from.key("start")?,
            step: from.key("step")?,
        })
    }
}
