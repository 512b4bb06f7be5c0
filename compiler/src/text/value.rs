//! Values of attributes: numbers, names, dimensions, types, cuts; printing and parsing side by
//! side, except where the IR prints itself.

use super::lex::{Token, escape};
use super::reader::Reader;
use crate::CompileError;
use crate::ir::{Dim, Factor, Group, Name, Partition, Segment, Sharding, Slices, Stage, Type};
use std::fmt::Write;
use terrace_plan::{Activation, Axis, DType, Mesh};

/// What can stand behind `key=`.
pub(super) trait Value: Sized {
    fn write(&self, out: &mut String);
    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError>;
}

/// A closed set of words.
macro_rules! words {
    ($type:ty { $($variant:path => $word:literal),+ $(,)? }) => {
        impl $crate::text::value::Value for $type {
            fn write(&self, out: &mut String) {
                out.push_str(match self { $($variant => $word),+ });
            }

            fn read(
                from: &mut $crate::text::reader::Reader<'_>,
            ) -> Result<Self, $crate::CompileError> {
                from.word_of(&[$(($word, $variant)),+])
            }
        }
    };
}
pub(super) use words;

words!(Axis {
    Axis::Cfg => "cfg",
    Axis::Ring => "ring",
    Axis::Ulysses => "ulysses",
});

words!(DType {
    DType::F32 => "f32",
    DType::F16 => "f16",
    DType::Bf16 => "bf16",
    DType::U32 => "u32",
    DType::I8 => "i8",
    DType::F8E4M3 => "f8e4m3",
});

words!(Stage {
    Stage::Model => "model",
    Stage::Fused => "fused",
    Stage::Sharded => "sharded",
    Stage::Comm => "comm",
    Stage::Scheduled => "scheduled",
    Stage::Local => "local",
});

words!(Activation {
    Activation::Silu => "silu",
    Activation::GeluTanh => "gelu_tanh",
    Activation::Gelu => "gelu",
});

/// Writes what the IR prints itself.
fn show(value: &dyn std::fmt::Display, out: &mut String) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "strings take all text");
}

/// Numbers stay below 2^32, so that sums of a few cannot overflow.
impl Value for usize {
    fn write(&self, out: &mut String) {
        show(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let number = match from.peek() {
            Token::Number(text) => text.parse::<u32>().ok(),
            _ => None,
        };
        match number {
            Some(number) => {
                from.next();
                Ok(number as Self)
            }
            None => Err(from.wrong("a whole number below 2^32")),
        }
    }
}

/// Shortest digits that give the same number back.
impl Value for f64 {
    fn write(&self, out: &mut String) {
        let written = write!(out, "{self:?}");
        debug_assert!(written.is_ok(), "strings take all text");
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let number = match from.peek() {
            Token::Number(text) | Token::Word(text) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => {
                from.next();
                Ok(number)
            }
            None => Err(from.wrong("a number")),
        }
    }
}

impl Value for String {
    fn write(&self, out: &mut String) {
        out.push('"');
        escape(self, out);
        out.push('"');
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        match from.peek().clone() {
            Token::Quoted(text) => {
                from.next();
                Ok(text)
            }
            _ => Err(from.wrong("a name in quotes")),
        }
    }
}

impl Value for Name {
    fn write(&self, out: &mut String) {
        out.push_str(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        from.word("a name").map(Into::into)
    }
}

impl<T: Value> Value for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (i, item) in self.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { ", " });
            item.write(out);
        }
        out.push(']');
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        from.list(T::read)
    }
}

impl Value for [usize; 3] {
    fn write(&self, out: &mut String) {
        self.to_vec().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let place = from.place();
        let numbers: Vec<usize> = from.value()?;
        let count = numbers.len();
        numbers
            .try_into()
            .map_err(|_| place.error("three numbers", count.to_string()))
    }
}

impl Value for Factor {
    fn write(&self, out: &mut String) {
        out.push_str(&self.name);
        out.push('=');
        self.size.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let name = from.word("a factor like `h=30`")?.into();
        from.expect('=')?;
        Ok(Self {
            name,
            size: from.value()?,
        })
    }
}

impl Value for Segment {
    fn write(&self, out: &mut String) {
        show(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let mut factors = vec![from.value()?];
        while matches!(from.peek(), Token::Word(_)) {
            factors.push(from.value()?);
        }
        Ok(Self { factors })
    }
}

impl Value for Dim {
    fn write(&self, out: &mut String) {
        show(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let name = from.word("a dimension like `c=8`")?;
        from.expect('=')?;
        if !from.take('(') {
            return Ok(Self::new(name, from.value()?));
        }
        let mut segments = vec![from.value()?];
        while from.take('|') {
            segments.push(from.value()?);
        }
        from.expect(')')?;
        Ok(Self::sum(name, segments))
    }
}

/// Types stay below 2^48 elements, so that sizes in bytes cannot overflow.
impl Value for Type {
    fn write(&self, out: &mut String) {
        show(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let place = from.place();
        let ty = Self::new(from.value()?, from.value()?);
        let sizes = ty.dims.iter().map(|dim| {
            dim.segments.iter().try_fold(0usize, |sum, segment| {
                sum.checked_add(product(segment.factors.iter().map(|f| f.size))?)
            })
        });
        let elements = sizes.into_iter().collect::<Option<Vec<_>>>();
        match elements.and_then(|sizes| product(sizes.into_iter())) {
            Some(elements) if elements < 1 << 48 => Ok(ty),
            _ => Err(place.error("a type of fewer than 2^48 elements", ty_text(&ty))),
        }
    }
}

fn ty_text(ty: &Type) -> String {
    let mut text = String::new();
    ty.write(&mut text);
    text
}

/// The product of sizes, or `None` when it overflows.
pub(super) fn product(sizes: impl Iterator<Item = usize>) -> Option<usize> {
    sizes.into_iter().try_fold(1usize, |n, s| n.checked_mul(s))
}

/// `ring,ulysses[0 8 16 23 30]>>1`.
impl Value for Partition {
    fn write(&self, out: &mut String) {
        show(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let mut axes = vec![from.value()?];
        while from.take(',') {
            axes.push(from.value()?);
        }
        from.expect('[')?;
        let mut offsets = Vec::new();
        while *from.peek() != Token::Mark(']') {
            offsets.push(from.value()?);
        }
        from.expect(']')?;
        let mut partition = Self::new(axes, offsets);
        if from.take('>') {
            from.expect('>')?;
            partition.shift = from.value()?;
        }
        Ok(partition)
    }
}

/// `@{h.w: ring[0 4 8], n: ulysses[0 1 2]}`.
impl Value for Sharding {
    fn write(&self, out: &mut String) {
        show(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        from.expect('@')?;
        let mut sharding = Self::replicated();
        read_cuts(from, |from| {
            let place = from.place();
            let names = from.word("a group of factors like `h.w`")?;
            let group = Group(names.split('.').map(Into::into).collect());
            from.expect(':')?;
            let partition = from.value()?;
            match sharding.0.insert(group, partition) {
                None => Ok(()),
                Some(_) => Err(place.error("a group once", format!("`{names}` again"))),
            }
        })?;
        Ok(sharding)
    }
}

/// Entries between braces, separated by commas.
fn read_cuts(
    from: &mut Reader<'_>,
    mut entry: impl FnMut(&mut Reader<'_>) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    from.expect('{')?;
    if from.take('}') {
        return Ok(());
    }
    entry(from)?;
    while from.take(',') {
        entry(from)?;
    }
    from.expect('}')
}

/// Lines `slices rows {h=30 w=45: ring[0 675 1350]}` and `slices heads {..}`, when there are any.
impl Value for Slices {
    fn write(&self, out: &mut String) {
        for (kind, cuts) in [("rows", &self.rows), ("heads", &self.heads)] {
            if cuts.is_empty() {
                continue;
            }
            out.push_str("  slices ");
            out.push_str(kind);
            out.push_str(" {");
            for (i, (factors, partition)) in cuts.iter().enumerate() {
                let segment = Segment {
                    factors: factors.clone(),
                };
                let gap = if i == 0 { "" } else { ", " };
                show(&format_args!("{gap}{segment}: {partition}"), out);
            }
            out.push_str("}\n");
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        let mut slices = Self::default();
        while from.take_word("slices") {
            let rows = from.word_of(&[("rows", true), ("heads", false)])?;
            let cuts = if rows {
                &mut slices.rows
            } else {
                &mut slices.heads
            };
            read_cuts(from, |from| {
                let segment: Segment = from.value()?;
                from.expect(':')?;
                cuts.push((segment.factors, from.value()?));
                Ok(())
            })?;
            from.end_of_line()?;
        }
        Ok(slices)
    }
}

/// `<cfg=1 ring=2 ulysses=2>`.
impl Value for Mesh {
    fn write(&self, out: &mut String) {
        show(&format_args!("<{self}>"), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        from.expect('<')?;
        let place = from.place();
        let mesh = Self {
            cfg: from.key("cfg")?,
            ring: from.key("ring")?,
            ulysses: from.key("ulysses")?,
        };
        match product([mesh.cfg, mesh.ring, mesh.ulysses].into_iter()) {
            Some(1..0x1_0000_0000) => {}
            _ => return Err(place.error("between one and 2^32 ranks", mesh.to_string())),
        }
        from.expect('>')?;
        Ok(mesh)
    }
}
