//! `denoise %0 %1 %2 guidance=classifier_free`, `advance %0 %1 %2 %3 previous`,
//! `noise %0 host=[b=1, f=(t=13), c=16]`.

use super::{Attributes, Line, read_whole};
use crate::CompileError;
use crate::ops::{Denoise, Guidance, Noise, Sources};
use crate::text::reader::Reader;
use crate::text::value::words;

words!(Guidance {
    Guidance::None => "none",
    Guidance::ClassifierFree => "classifier_free",
});

impl Attributes for Denoise {
    fn write(&self, line: &mut Line<'_>) {
        line.key("guidance", &self.guidance);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            guidance: from.key("guidance")?,
        })
    }
}

impl Attributes for Sources {
    fn write(&self, line: &mut Line<'_>) {
        line.flag("previous", self.previous);
        line.flag("noise", self.noise);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            previous: from.flag("previous"),
            noise: from.flag("noise"),
        })
    }
}

impl Attributes for Noise {
    fn write(&self, line: &mut Line<'_>) {
        line.key("host", &self.host);
        line.whole(&self.ty);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            host: from.key("host")?,
            ty: read_whole(from)?,
        })
    }
}
