//! `rope %0 %1`, `qk_norm_rope %0 %1 kind=layer eps=1e-6 affine=none rope`,
//! `attention %0 packed scale=0.5`, `attention_step %0 %1 %2 next scale=0.5 products=bf16`.

use super::{Attributes, Line};
use crate::CompileError;
use crate::ops::{Attention, AttentionStep, Packing, QkNormRope, Rope};
use crate::text::lex::Token;
use crate::text::reader::Reader;
use crate::text::value::words;
use terrace_plan::{DType, Stage};

words!(Packing {
    Packing::Separate => "separate",
    Packing::Packed => "packed",
});

words!(Stage {
    Stage::First => "first",
    Stage::Next => "next",
});

impl Attributes for Rope {
    fn write(&self, _line: &mut Line<'_>) {
        let Self = self;
    }

    fn read(_from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self)
    }
}

impl Attributes for QkNormRope {
    fn write(&self, line: &mut Line<'_>) {
        if let Some(norm) = &self.norm {
            norm.write(line);
        }
        line.flag("rope", self.rope);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let norm = match from.peek() {
            Token::Word("kind") => Some(Attributes::read(from)?),
            _ => None,
        };
        Ok(Self {
            norm,
            rope: from.flag("rope"),
        })
    }
}

impl Attributes for Attention {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.packing);
        line.key("scale", &self.scale);
        write_products(self.products, line);
        line.flag("bias", self.bias);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            packing: from.value()?,
            scale: from.key("scale")?,
            products: from.optional("products")?.unwrap_or(DType::F32),
            bias: from.flag("bias"),
        })
    }
}

impl Attributes for AttentionStep {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.stage);
        line.key("scale", &self.scale);
        write_products(self.products, line);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            stage: from.value()?,
            scale: from.key("scale")?,
            products: from.optional("products")?.unwrap_or(DType::F32),
        })
    }
}

/// The element type of products, f32 being left out.
fn write_products(products: DType, line: &mut Line<'_>) {
    if products != DType::F32 {
        line.key("products", &products);
    }
}
