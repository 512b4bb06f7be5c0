//! Kernels for the CPU, one family per file.
//!
//! Invariants: every kernel checks its operands with checked arithmetic before it reads or writes;
//! it runs in the rayon pool of the caller; the arithmetic of one row (head, output pixel) does not
//! depend on the number of rows, on how they were cut, or on the number of threads.
