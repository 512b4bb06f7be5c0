//! Configs of published checkpoints.

use std::path::Path;
use terrace_models::transformer::TransformerConfig;

/// The transformer config of a published checkpoint.
pub fn config(model: &str) -> TransformerConfig {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    TransformerConfig::read(&folder.join(format!("transformer-{model}.json"))).unwrap()
}
