//! One packed copy of every weight per process.
//!
//! Invariant: a weight of one checkpoint is loaded once, whatever the number of ranks, plans and
//! sessions that ask for it; equal means equal sources, shape, layout, type and cut.

use super::LoadedWeight;
use crate::{Checkpoint, RuntimeError};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terrace_plan::Weight;

/// Weights in the form `W` of a backend, shared between sessions.
#[derive(Debug)]
pub struct WeightCache<W = LoadedWeight> {
    loaded: Mutex<BTreeMap<(u64, Weight), Arc<W>>>,
}

impl<W> Default for WeightCache<W> {
    fn default() -> Self {
        Self {
            loaded: Mutex::default(),
        }
    }
}

impl<W: Send + Sync> WeightCache<W> {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of weights held.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no weight is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the weights that no session uses.
    pub fn shrink(&self) {
        self.lock()
            .retain(|_, weight| Arc::strong_count(weight) > 1);
    }

    /// Those of these weights that are not held.
    pub fn missing<'w>(&self, checkpoint: &Checkpoint, weights: &'w [Weight]) -> Vec<&'w Weight> {
        let loaded = self.lock();
        let absent = |weight: &&Weight| !loaded.contains_key(&(checkpoint.id(), (*weight).clone()));
        weights.iter().filter(absent).collect()
    }

    /// The weights of a plan in its order; those not held yet are loaded in parallel by `load`.
    ///
    /// # Errors
    /// The first error of `load` in the order of the plan.
    pub fn load_all<F>(
        &self,
        checkpoint: &Checkpoint,
        weights: &[Weight],
        load: F,
    ) -> Result<Vec<Arc<W>>, RuntimeError>
    where
        F: Fn(&Checkpoint, &Weight) -> Result<W, RuntimeError> + Sync,
    {
        let results: Vec<Result<Arc<W>, RuntimeError>> = weights
            .par_iter()
            .map(|weight| self.get(checkpoint, weight, &load))
            .collect();
        results.into_iter().collect()
    }

    fn get<F>(
        &self,
        checkpoint: &Checkpoint,
        weight: &Weight,
        load: &F,
    ) -> Result<Arc<W>, RuntimeError>
    where
        F: Fn(&Checkpoint, &Weight) -> Result<W, RuntimeError> + Sync,
    {
        let key = (checkpoint.id(), weight.clone());
        if let Some(loaded) = self.lock().get(&key) {
            return Ok(Arc::clone(loaded));
        }
        let loaded = Arc::new(load(checkpoint, weight)?);
        // Two threads may have loaded the same weight; the first copy is the one that stays.
        Ok(Arc::clone(self.lock().entry(key).or_insert(loaded)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, Weight), Arc<W>>> {
        // The map is only ever changed by whole insertions, so a panic elsewhere leaves it sound.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
