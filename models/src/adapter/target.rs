//! What adapters need to know of a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::{Device, Linear, RopeStyle};

use super::modules::{LinearModule, Module, ModuleKind, Order, modules};
use super::sites::{SiteLayer, Sites};
use crate::config::NormWeight;
use crate::families::Names;
use crate::{Checkpoint, Gguf, GgufValue, ModelConfig};

/// A model as adapters see it: names and shapes of its modules, and its weights where an adapter
/// depends on them. Clones share it; it may be used on any thread while the model runs.
#[derive(Clone, Debug)]
pub struct AdapterTarget {
    shared: Arc<Shared>,
    /// The model's parts on other devices.
    others: Arc<[AdapterTarget]>,
}

#[derive(Debug)]
struct Shared {
    config: ModelConfig,
    device: Device,
    sites: Sites,
    /// Weight and bias of each norm, by number.
    norms: BTreeMap<usize, (Vec<f32>, Option<Vec<f32>>)>,
    embedding: Arc<Linear>,
    hugging_face: NamedModules,
    gguf: Option<NamedModules>,
    gguf_architecture: Option<String>,
}

/// Modules under the names of one container.
#[derive(Debug)]
pub(crate) struct NamedModules {
    prefix: &'static str,
    by_name: BTreeMap<String, Module>,
}

impl NamedModules {
    fn new(config: &ModelConfig, names: &Names, order: Order) -> Self {
        Self {
            prefix: names.prefix,
            by_name: modules(config, names, order),
        }
    }

    /// Its linear layers.
    pub(crate) fn linear(&self) -> impl Iterator<Item = (&str, &LinearModule)> {
        self.by_name
            .iter()
            .filter_map(|(name, module)| match &module.kind {
                ModuleKind::Linear(linear) => Some((name.as_str(), linear)),
                ModuleKind::Norm(_) | ModuleKind::Embedding => None,
            })
    }

    /// The module of this name and its full name; what stands before all names may be missing.
    pub(crate) fn find(&self, name: &str) -> Option<(String, &Module)> {
        let full = [name.to_string(), format!("{}{name}", self.prefix)];
        full.into_iter()
            .find_map(|name| self.by_name.get(&name).map(|module| (name, module)))
    }
}

impl AdapterTarget {
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        device: &Device,
        sites: Sites,
        norms: BTreeMap<usize, (Vec<f32>, Option<Vec<f32>>)>,
        embedding: &Arc<Linear>,
    ) -> Self {
        let config = checkpoint.config();
        let names = checkpoint.adapter_names();
        let is_gguf = checkpoint.gguf().is_some();
        // Converters to GGUF lay the halves of some families' heads side by side.
        let is_reordered = names.halves && config.attention.rope_style == RopeStyle::Interleaved;
        let order = if is_reordered {
            Order::Halves
        } else {
            Order::Same
        };
        Self {
            shared: Arc::new(Shared {
                hugging_face: NamedModules::new(config, names.hugging_face, order),
                gguf: is_gguf.then(|| NamedModules::new(config, names.gguf, Order::Same)),
                gguf_architecture: checkpoint.gguf().and_then(architecture),
                config: config.clone(),
                device: device.clone(),
                sites,
                norms,
                embedding: embedding.clone(),
            }),
            others: Arc::default(),
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.shared.config
    }

    /// Whether both are of one model in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Adapters for this model are from now on loaded for these parts of it as well.
    pub(crate) fn join(&mut self, others: Vec<AdapterTarget>) {
        self.others = others.into();
    }

    pub(crate) fn others(&self) -> &[AdapterTarget] {
        &self.others
    }

    pub(crate) fn device(&self) -> &Device {
        &self.shared.device
    }

    /// The layers of a site.
    pub(crate) fn layers(&self, site: usize) -> &[SiteLayer] {
        self.shared.sites.layers(site)
    }

    /// Weight and bias of a norm.
    pub(crate) fn norm(&self, id: usize) -> Option<&(Vec<f32>, Option<Vec<f32>>)> {
        self.shared.norms.get(&id)
    }

    /// What is added to a norm's weight as Hugging Face stores it.
    pub(crate) fn norm_offset(&self) -> f32 {
        // The converter to GGUF adds it for this family.
        let is_offset = self.shared.config.architecture.starts_with("gemma");
        match self.shared.config.norm.weight {
            NormWeight::PlusOne => 1.0,
            _ if is_offset => 1.0,
            _ => 0.0,
        }
    }

    pub(crate) fn embedding(&self) -> &Linear {
        &self.shared.embedding
    }

    pub(crate) fn hugging_face(&self) -> &NamedModules {
        &self.shared.hugging_face
    }

    /// What the model's GGUF file calls its architecture.
    pub(crate) fn gguf_architecture(&self) -> Option<&str> {
        self.shared.gguf_architecture.as_deref()
    }

    pub(crate) fn gguf(&self) -> Option<&NamedModules> {
        self.shared.gguf.as_ref()
    }
}

fn architecture(gguf: &Gguf) -> Option<String> {
    match gguf.get("general.architecture") {
        Some(GgufValue::String(name)) => Some(name.to_string()),
        _ => None,
    }
}
