//! Pieces of a weight in the type that a device stores, written where they are wanted.
//!
//! A weight goes from the mapped file to a device without a copy of the whole in between, and without a
//! conversion where it is stored as the device wants it.

use super::joined::{Element, Joined};
use crate::ResolveFault;
use half::{bf16, f16};
use terrace_plan::DType;

impl Joined<'_> {
    /// Writes the elements from `first` on to `out`, as many as it has room for, as f32, f16 or bf16, rounded
    /// to nearest.
    ///
    /// # Errors
    /// When `dtype` is another type.
    pub(crate) fn write(
        &self,
        first: usize,
        dtype: DType,
        out: &mut [u8],
    ) -> Result<(), ResolveFault> {
        let (mut skip, mut out) = (first, out);
        for source in &self.sources {
            let len = source.len();
            if skip >= len {
                skip -= len;
                continue;
            }
            let count = (len - skip).min(out.len() / dtype.bytes());
            let (to, rest) = std::mem::take(&mut out).split_at_mut(count * dtype.bytes());
            let range = source.range(skip, count);
            convert(source.element, &source.bytes[range.clone()], dtype, to)?;
            self.checkpoint.passed(source.name, &range);
            (skip, out) = (0, rest);
            if out.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// The elements `from` as `to` stores them.
fn convert(stored: Element, from: &[u8], dtype: DType, to: &mut [u8]) -> Result<(), ResolveFault> {
    match (stored, dtype) {
        (Element::F32, DType::F32) | (Element::F16, DType::F16) | (Element::Bf16, DType::Bf16) => {
            to.copy_from_slice(from);
        }
        (_, DType::F32) => narrowed(stored, from, to, f32::to_ne_bytes),
        (_, DType::F16) => narrowed(stored, from, to, |x| f16::from_f32(x).to_ne_bytes()),
        (_, DType::Bf16) => narrowed(stored, from, to, |x| bf16::from_f32(x).to_ne_bytes()),
        (_, dtype) => return Err(ResolveFault::NoElement { dtype }),
    }
    Ok(())
}

/// The elements `from`, each made of its value in single precision by `narrow`.
fn narrowed<const N: usize>(
    stored: Element,
    from: &[u8],
    to: &mut [u8],
    narrow: impl Fn(f32) -> [u8; N],
) {
    stored.convert(from, to.as_chunks_mut().0, narrow);
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, StoredDType, TensorEntry};
    use super::Joined;
    use half::{bf16, f16};
    use std::collections::BTreeMap;
    use terrace_plan::{DType, Weight, WeightLayout, WeightSource};

    /// One weight of three tensors, of f32, bf16 and f16.
    fn stored(values: [[f32; 3]; 3]) -> (Checkpoint, Weight) {
        let [a, b, c] = values;
        let parts: [(StoredDType, Vec<u8>); 3] = [
            (StoredDType::F32, a.map(f32::to_le_bytes).concat()),
            (
                StoredDType::BF16,
                b.map(|x| bf16::from_f32(x).to_le_bytes()).concat(),
            ),
            (
                StoredDType::F16,
                c.map(|x| f16::from_f32(x).to_le_bytes()).concat(),
            ),
        ];
        let (mut bytes, mut tensors, mut sources) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (name, (dtype, part)) in ["a", "b", "c"].into_iter().zip(parts) {
            let range = bytes.len()..bytes.len() + part.len();
            bytes.extend(part);
            let (name, shape) = (name.to_owned(), vec![3]);
            sources.push(WeightSource {
                name: name.clone(),
                aliases: Vec::new(),
                shape: shape.clone(),
            });
            let entry = TensorEntry {
                name: name.clone(),
                dtype,
                shape,
                range,
            };
            tensors.insert(name, entry);
        }
        let weight = Weight {
            sources,
            dtype: DType::F32,
            shape: vec![9],
            layout: WeightLayout::Plain,
            boxes: Vec::new(),
            len: 9,
        };
        (Checkpoint::over("test", bytes, tensors), weight)
    }

    #[test]
    fn pieces_are_what_the_whole_is_narrowed_to() {
        let values = [[1.0, -2.5, 1e-3], [3.25, 0.1, -7.0], [0.3, 1e5, -0.0]];
        let (checkpoint, weight) = stored(values);
        let joined = Joined::new(&checkpoint, &weight).unwrap();
        let whole = joined.to_vec();
        assert_eq!(joined.len(), 9);
        for (dtype, narrow) in [
            (DType::F32, f32::to_ne_bytes as fn(f32) -> [u8; 4]),
            (DType::Bf16, |x| {
                let [a, b] = bf16::from_f32(x).to_ne_bytes();
                [a, b, 0, 0]
            }),
            (DType::F16, |x| {
                let [a, b] = f16::from_f32(x).to_ne_bytes();
                [a, b, 0, 0]
            }),
        ] {
            let size = dtype.bytes();
            let expected = whole.iter().flat_map(|&x| narrow(x)[..size].to_vec());
            let expected: Vec<u8> = expected.collect();
            for piece in [1, 2, 4, 9] {
                let mut found = vec![0xff; 9 * size];
                for (index, out) in found.chunks_mut(piece * size).enumerate() {
                    joined.write(index * piece, dtype, out).unwrap();
                }
                assert_eq!(found, expected, "{dtype} in pieces of {piece}");
            }
        }
        assert!(joined.write(0, DType::U32, &mut [0; 4]).is_err());
    }
}
