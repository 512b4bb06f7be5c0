//! Types: a dimension is a sum of segments, a segment a product of factors.
//!
//! The joint sequence is `seq=(txt=226 | t=13 h=30 w=45)`, not 17776, so that a slice of the
//! latent height is still a slice after patchify, flatten and concatenation with the text.
//! Tensors are dense and row-major; segments of a dimension lie one after the other.

use std::fmt;
use std::sync::Arc;
use terrace_plan::DType;

/// Name of a factor, a dimension or a port.
pub type Name = Arc<str>;

/// A named extent that is never cut into further names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor {
    /// Name, unique within a type.
    pub name: Name,
    /// Number of elements.
    pub size: usize,
}

/// A product of factors, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Factors, outermost first; at least one.
    pub factors: Vec<Factor>,
}

/// A dimension: segments laid one after the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim {
    /// Name; that of its factor when the dimension is one factor.
    pub name: Name,
    /// At least one segment.
    pub segments: Vec<Segment>,
}

/// Element type and dimensions of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub dims: Vec<Dim>,
}

impl Factor {
    /// A factor.
    pub fn new(name: &str, size: usize) -> Self {
        Self {
            name: name.into(),
            size,
        }
    }
}

impl Segment {
    /// A product of `(name, size)` factors, outermost first.
    pub fn new(factors: &[(&str, usize)]) -> Self {
        Self {
            factors: factors.iter().map(|&(n, s)| Factor::new(n, s)).collect(),
        }
    }

    /// Number of elements.
    pub fn size(&self) -> usize {
        self.factors.iter().map(|f| f.size).product()
    }
}

impl Dim {
    /// A dimension of one factor of the same name: `c=1920`.
    pub fn new(name: &str, size: usize) -> Self {
        Self::product(name, &[(name, size)])
    }

    /// A dimension of one segment: `c=(n=30 d=64)`.
    pub fn product(name: &str, factors: &[(&str, usize)]) -> Self {
        Self::sum(name, vec![Segment::new(factors)])
    }

    /// A dimension of several segments: `seq=(txt=226 | t=13 h=30 w=45)`.
    pub fn sum(name: &str, segments: Vec<Segment>) -> Self {
        Self {
            name: name.into(),
            segments,
        }
    }

    /// Number of elements: the sum of the segments' sizes.
    pub fn size(&self) -> usize {
        self.segments.iter().map(Segment::size).sum()
    }

    /// All factors in order.
    pub fn factors(&self) -> impl Iterator<Item = &Factor> {
        self.segments.iter().flat_map(|s| s.factors.iter())
    }
}

impl Type {
    /// A type.
    pub fn new(dtype: DType, dims: Vec<Dim>) -> Self {
        Self { dtype, dims }
    }

    /// A type of f32 elements.
    pub fn f32(dims: Vec<Dim>) -> Self {
        Self::new(DType::F32, dims)
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(Dim::size).product()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(Dim::size).collect()
    }

    /// The dimension with this name.
    pub fn dim(&self, name: &str) -> Option<&Dim> {
        self.dims.iter().find(|d| &*d.name == name)
    }

    /// The factor with this name.
    pub fn factor(&self, name: &str) -> Option<&Factor> {
        self.dims
            .iter()
            .flat_map(Dim::factors)
            .find(|f| &*f.name == name)
    }

    /// All factors in order.
    pub fn factors(&self) -> impl Iterator<Item = &Factor> {
        self.dims.iter().flat_map(Dim::factors)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, factor) in self.factors.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{}={}", factor.name, factor.size)?;
        }
        Ok(())
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [segment] = self.segments.as_slice()
            && let [factor] = segment.factors.as_slice()
            && factor.name == self.name
        {
            return write!(f, "{}={}", self.name, factor.size);
        }
        write!(f, "{}=(", self.name)?;
        for (i, segment) in self.segments.iter().enumerate() {
            let gap = if i == 0 { "" } else { " | " };
            write!(f, "{gap}{segment}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            let gap = if i == 0 { "" } else { ", " };
            write!(f, "{gap}{dim}")?;
        }
        f.write_str("]")
    }
}
