//! Why the sizes of a kernel call are illegal, whatever its buffers are.

/// Why the sizes of a kernel call are illegal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// A size that must not be zero is.
    #[error("`{size}` must be at least 1, is 0")]
    Zero {
        /// Name of the size.
        size: &'static str,
    },
    /// The size or end of an operand does not fit a machine word.
    #[error("the size of `{operand}` overflows")]
    Overflow {
        /// Name of the operand.
        operand: &'static str,
    },
    /// A written view whose elements share places.
    #[error("the strides of `{operand}` write elements onto each other")]
    Strides {
        /// Name of the operand.
        operand: &'static str,
    },
    /// The boxes of an operand are illegal.
    #[error("box {index} of `{operand}`: {fault}")]
    Box {
        /// Name of the operand.
        operand: &'static str,
        /// Index of the box.
        index: usize,
        /// What is wrong.
        fault: crate::BoxFault,
    },
    /// Batch times segment rows is not the number of rows.
    #[error("the segments have {found} rows, the call has {expected}")]
    SegmentRows {
        /// Rows of the call.
        expected: usize,
        /// Batch x sum of segment rows.
        found: usize,
    },
    /// Channels do not divide into the groups.
    #[error("{channels} channels do not divide into {groups} groups")]
    Groups {
        /// Channels.
        channels: usize,
        /// Groups.
        groups: usize,
    },
    /// A spatial convolution kernel without a centre.
    #[error("the kernel must be odd in height and width, is {height}x{width}")]
    EvenKernel {
        /// Height.
        height: usize,
        /// Width.
        width: usize,
    },
    /// Rotary pairs and sin-cos halves need an even number.
    #[error("`{name}` must be even, is {found}")]
    Odd {
        /// Name of the size.
        name: &'static str,
        /// The size.
        found: usize,
    },
    /// More rows are skipped than there are.
    #[error("rotary positions begin at row {first_row}, there are {rows} rows")]
    FirstRow {
        /// Rows per batch item.
        rows: usize,
        /// First row with a position.
        first_row: usize,
    },
    /// Relative positions need exact and logarithmic buckets in both directions.
    #[error(
        "{buckets} buckets up to distance {max_distance}: needs a multiple of 4 buckets and a \
         distance above a quarter of them"
    )]
    Buckets {
        /// Number of buckets.
        buckets: usize,
        /// Distance from which all positions share a bucket.
        max_distance: usize,
    },
    /// The frequencies of a time embedding would divide by zero.
    #[error("a frequency shift of {shift} does not fit an embedding of {dim} channels")]
    FrequencyShift {
        /// Channels.
        dim: usize,
        /// The shift.
        shift: f64,
    },
    /// A number that must be finite is not.
    #[error("`{name}` must be finite, is {found}")]
    NotFinite {
        /// Name of the number.
        name: &'static str,
        /// The number.
        found: f64,
    },
    /// There are no products of this element type.
    #[error("the products must be in f32 or bf16, are in {found}")]
    Products {
        /// The element type.
        found: crate::DType,
    },
    /// A number that must not be negative is.
    #[error("`{name}` must not be negative, is {found}")]
    Negative {
        /// Name of the number.
        name: &'static str,
        /// The number.
        found: f64,
    },
}
