//! `all_to_all %0 axis=ulysses gather=seq split=c`, `all_gather %0 axis=cfg gather=b`,
//! `ring_shift %0 axis=ring`.

use super::{Attributes, Line};
use crate::CompileError;
use crate::ops::{AllGather, AllToAll, RingShift};
use crate::text::reader::Reader;

impl Attributes for AllToAll {
    fn write(&self, line: &mut Line<'_>) {
        line.key("axis", &self.axis);
        line.key("gather", &self.gather);
        line.key("split", &self.split);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            axis: from.key("axis")?,
            gather: from.key("gather")?,
            split: from.key("split")?,
        })
    }
}

impl Attributes for AllGather {
    fn write(&self, line: &mut Line<'_>) {
        line.key("axis", &self.axis);
        line.key("gather", &self.gather);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            axis: from.key("axis")?,
            gather: from.key("gather")?,
        })
    }
}

impl Attributes for RingShift {
    fn write(&self, line: &mut Line<'_>) {
        line.key("axis", &self.axis);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            axis: from.key("axis")?,
        })
    }
}
