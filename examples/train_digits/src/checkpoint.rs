//! Checkpoints, from which a training that was interrupted goes on.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::net::Net;
use crate::options::Options;

/// State that the training depends on, after an epoch.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) epoch: u64,
    /// The first step that was not done.
    pub(crate) step: u64,
    /// Bits as well: JSON has no infinity.
    best_loss: u64,
    seed: u64,
    batch_size: usize,
    learning_rate: f64,
    /// The bits of all weights and biases, so that none is rounded.
    weights: Vec<u32>,
}

impl Checkpoint {
    pub(crate) fn of(net: &Net, options: &Options, epoch: u64, step: u64, best_loss: f64) -> Self {
        let weights = net.values().map(|value| value.to_bits()).collect();
        let Options { seed, batch_size, learning_rate, .. } = *options;
        let best_loss = best_loss.to_bits();
        Self { epoch, step, best_loss, seed, batch_size, learning_rate, weights }
    }

    /// Takes the place of the last one, as a whole or not at all.
    pub(crate) fn save(&self, folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
        let (path, new) = (path(folder), folder.join("checkpoint.new"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, &path)?;
        Ok(path)
    }

    pub(crate) fn load(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let path = path(folder);
        let bytes = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub(crate) fn net(&self) -> Result<Net, Box<dyn Error>> {
        let mut net = Net::new(self.seed);
        if net.values().count() != self.weights.len() {
            return Err("the checkpoint is of another network".into());
        }
        net.values_mut().zip(&self.weights).for_each(|(value, bits)| *value = f32::from_bits(*bits));
        Ok(net)
    }

    pub(crate) fn best_loss(&self) -> f64 {
        f64::from_bits(self.best_loss)
    }

    /// Sets the options under which the checkpoint was made.
    pub(crate) fn set(&self, options: &mut Options) {
        options.seed = self.seed;
        options.batch_size = self.batch_size;
        options.learning_rate = self.learning_rate;
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("checkpoint.json")
}
