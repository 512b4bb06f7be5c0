//! CPU and GPU kernels: plain arguments in, numbers out.
