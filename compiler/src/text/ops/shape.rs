//! `take %0 t start=0 count=1`, `repeat %0 b count=2`; `segment %0 1`, `concat %0 %1 c` and
//! `cast %0 to=bf16` have one value.

use super::{Attributes, Line};
use crate::CompileError;
use crate::ops::{Repeat, Take};
use crate::text::reader::Reader;

impl Attributes for Take {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.factor);
        line.key("start", &self.start);
        line.key("count", &self.count);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            factor: from.value()?,
            start: from.key("start")?,
            count: from.key("count")?,
        })
    }
}

impl Attributes for Repeat {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.factor);
        line.key("count", &self.count);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            factor: from.value()?,
            count: from.key("count")?,
        })
    }
}
