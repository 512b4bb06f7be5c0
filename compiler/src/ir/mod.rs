//! The intermediate representation: dimensions made of factors, shardings over named mesh axes,
//! and a graph of typed nodes.

mod dims;
mod graph;
mod sharding;
mod stage;

pub use dims::{Dim, Factor, Name, Segment, Type};
pub use graph::{Graph, Node, NodeId, Path, Phase, common_path};
pub use sharding::{Group, Partition, Sharding, Slices};
pub use stage::Stage;
