//! Finding a checkpoint's tensors by the names that its architecture has for them, and knowing
//! in the end which of them nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use crate::checkpoint::Tensor;
use crate::convert::Role;
use crate::families::Names;
use crate::quantized::{Quantization, RawTensor};
use crate::{Checkpoint, LoadError};

/// A checkpoint while its tensors are taken.
#[derive(Debug)]
pub(crate) struct Lookup<'a> {
    checkpoint: &'a Checkpoint,
    names: &'static Names,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, names: &'static Names) -> Self {
        Self {
            checkpoint,
            names,
            used: RefCell::default(),
        }
    }

    pub(crate) fn names(&self) -> &'static Names {
        self.names
    }

    /// Whether there is a tensor of this full name, of whatever type.
    pub(crate) fn has(&self, name: &str) -> bool {
        let short = name.strip_prefix(self.names.prefix);
        self.checkpoint.has(name) || short.is_some_and(|short| self.checkpoint.has(short))
    }

    /// The tensor of this full name in a safetensors file, whatever its type and shape.
    pub(crate) fn raw(&self, name: &str) -> Result<RawTensor<'a>, LoadError> {
        let tensor = self.peek(name)?;
        self.used
            .borrow_mut()
            .insert(self.own_name(name).to_string());
        Ok(tensor)
    }

    /// As [`Self::raw`], to look at only.
    pub(crate) fn peek(&self, name: &str) -> Result<RawTensor<'a>, LoadError> {
        self.checkpoint
            .raw(self.own_name(name))
            .ok_or_else(|| self.error(format!("tensor `{name}` is missing")))
    }

    /// Counts a tensor as taken, if there is one.
    pub(crate) fn ignore(&self, name: &str) {
        self.used
            .borrow_mut()
            .insert(self.own_name(name).to_string());
    }

    /// A name as the checkpoint has it: perhaps without what stands before all of its names.
    fn own_name<'n>(&self, name: &'n str) -> &'n str {
        match name.strip_prefix(self.names.prefix) {
            Some(short) if !self.checkpoint.has(name) && self.checkpoint.has(short) => short,
            _ => name,
        }
    }

    /// How the checkpoint says that linear layers are stored.
    pub(crate) fn quantization(&self) -> Option<&'a Quantization> {
        self.checkpoint.quantization()
    }

    /// What a matrix of this full name is for.
    pub(crate) fn role_of(&self, name: &str) -> Role {
        let names = self.names;
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let layer_name = || {
            let rest = stem.strip_prefix(names.layers)?;
            rest.split_once('.').map(|(_, name)| name)
        };
        if stem == names.embedding || stem == names.head {
            return Role::Table;
        }
        let exact = [names.experts.router, names.experts.shared_gate];
        let is_exact = layer_name().is_some_and(|name| exact.contains(&name));
        if is_exact || stem == names.positions {
            return Role::Exact;
        }
        Role::Linear
    }

    /// What errors about the checkpoint as a whole are reported under.
    pub(crate) fn path(&self) -> &'a Path {
        self.checkpoint.path()
    }

    /// An error about the checkpoint as a whole.
    pub(crate) fn error(&self, message: impl Into<String>) -> LoadError {
        LoadError::new(self.checkpoint.path(), message)
    }

    /// The tensor of this full name, which must have this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, LoadError> {
        let (name, tensor) = self.find(name)?.ok_or_else(|| {
            LoadError::new(
                self.checkpoint.path(),
                format!("tensor `{name}` is missing (expected shape {shape:?})"),
            )
        })?;
        if without_ones(tensor.shape) != without_ones(shape) {
            return Err(LoadError::new(
                tensor.file,
                format!(
                    "tensor `{name}`: expected shape {shape:?}, found {:?}",
                    tensor.shape
                ),
            ));
        }
        self.used.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Checkpoints saved from the inner model lack what stands before all of its names.
    fn find(&self, name: &str) -> Result<Option<(String, Tensor<'a>)>, LoadError> {
        if let Some(tensor) = self.checkpoint.tensor(name)? {
            return Ok(Some((name.to_string(), tensor)));
        }
        let Some(short) = name.strip_prefix(self.names.prefix) else {
            return Ok(None);
        };
        let tensor = self.checkpoint.tensor(short)?;
        Ok(tensor.map(|tensor| (short.to_string(), tensor)))
    }

    /// Refuses a checkpoint with biases, or with anything in the first `n_layers` layers, that
    /// the model did not take: without them it would give other answers. Other tensors that
    /// nobody took are reported only (old checkpoints carry a head beside tied embeddings, new
    /// ones layers that only training needs).
    pub(crate) fn finish(&self, n_layers: usize) -> Result<(), LoadError> {
        let used = self.used.borrow();
        let mut unread = Vec::new();
        for name in self.checkpoint.tensor_names() {
            if used.contains(name) || self.is_ignored(name) {
                continue;
            }
            let layer = self.layer_of(name);
            let is_needed = match layer {
                Some(layer) => layer < n_layers,
                None => name.ends_with(".bias"),
            };
            if is_needed {
                return Err(LoadError::new(
                    self.checkpoint.path(),
                    format!("tensor `{name}` has no place in the configured architecture"),
                ));
            }
            unread.push(name);
        }
        if let Some(message) = unread_message(&unread) {
            tracing::warn!("{message}");
        }
        Ok(())
    }

    fn is_ignored(&self, name: &str) -> bool {
        self.names.ignored.iter().any(|end| name.ends_with(end))
    }

    /// The number of the layer that a tensor belongs to.
    fn layer_of(&self, name: &str) -> Option<usize> {
        let layers = self.names.layers;
        let short = layers.strip_prefix(self.names.prefix).unwrap_or(layers);
        let rest = name.strip_prefix(layers).or(name.strip_prefix(short))?;
        rest.split('.').next()?.parse().ok()
    }
}

/// A matrix of one row may be stored as a vector.
fn without_ones(shape: &[usize]) -> &[usize] {
    let n = shape.iter().take_while(|size| **size == 1).count();
    &shape[n..]
}

/// One line about tensors that nobody took.
fn unread_message(names: &[&str]) -> Option<String> {
    const N_SHOWN: usize = 3;
    if names.is_empty() {
        return None;
    }
    let shown = names[..names.len().min(N_SHOWN)].join(", ");
    let more = if names.len() > N_SHOWN { ", ..." } else { "" };
    Some(format!(
        "{} tensors of the checkpoint are not used by the architecture: {shown}{more}",
        names.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_tensors_are_counted_and_the_first_named() {
        assert_eq!(unread_message(&[]), None);
        let message = unread_message(&["a", "b", "c", "d"]).unwrap_or_default();
        assert!(message.starts_with("4 tensors") && message.ends_with(": a, b, c, ..."));
    }
}
