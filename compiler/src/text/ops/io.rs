//! `input "latents" host=[b=1, f=(t=13), c=16]`, `output %3 "sample" host=[..]`,
//! `weight layout=linear from=["a.weight" or "b.weight" [8, 4], "c.weight" [8, 4]]`.

use super::{Attributes, Line, read_whole};
use crate::CompileError;
use crate::ir::Type;
use crate::ops::{Input, Output, Weight};
use crate::text::lex::Token;
use crate::text::reader::Reader;
use crate::text::value::{Value, product, words};
use terrace_plan::{WeightLayout, WeightSource};

words!(WeightLayout {
    WeightLayout::Plain => "plain",
    WeightLayout::Linear => "linear",
    WeightLayout::Conv3d => "conv3d",
});

impl Attributes for Input {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.name);
        line.key("host", &self.host);
        line.whole(&self.ty);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            name: from.value()?,
            host: from.key("host")?,
            ty: read_whole(from)?,
        })
    }
}

impl Attributes for Output {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.name);
        line.key("host", &self.host);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            name: from.value()?,
            host: from.key("host")?,
        })
    }
}

impl Attributes for Weight {
    fn write(&self, line: &mut Line<'_>) {
        line.key("layout", &self.layout);
        line.key("from", &self.sources);
        line.whole(&Type::new(self.dtype, self.dims.clone()));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let (layout, sources) = (from.key("layout")?, from.key("from")?);
        let ty = read_whole(from)?;
        Ok(Self {
            sources,
            dims: ty.dims,
            layout,
            dtype: ty.dtype,
        })
    }
}

impl Value for WeightSource {
    fn write(&self, out: &mut String) {
        self.name.write(out);
        for alias in &self.aliases {
            out.push_str(" or ");
            alias.write(out);
        }
        out.push(' ');
        self.shape.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let name = from.value()?;
        let mut aliases = Vec::new();
        while from.take_word("or") {
            aliases.push(from.value()?);
        }
        if *from.peek() != Token::Mark('[') {
            return Err(from.wrong("`or` or a shape like `[8, 4]`"));
        }
        let place = from.place();
        let shape: Vec<usize> = from.value()?;
        match product(shape.iter().copied()) {
            Some(elements) if elements < 1 << 48 => Ok(Self {
                name,
                aliases,
                shape,
            }),
            _ => Err(place.error("a shape of fewer than 2^48 elements", format!("{shape:?}"))),
        }
    }
}
