//! From a name to a model in memory: read, planned, and with an engine that runs.

use std::sync::Arc;

use kernels::Device;
use models::{Checkpoint, ModelRunner, SharedWeights};
use tokio::sync::Semaphore;

use super::FleetError;
use super::member::{Member, Resident};
use crate::adapters::{AdapterOptions, Adapters, loader};
use crate::dialect::Dialect;
use crate::engine::{Engine, EngineHandle, Turns};
use crate::grammar::GrammarCompiler;
use crate::load::{self, Loaded, Runner, StartError};
use crate::metrics::{Metrics, Served};
use crate::plan::{FreeMemory, MemoryPlan, Needs, weight_file_bytes};
use crate::settings::Settings;
use crate::source::ModelSource;
use crate::state::{AppOptions, ServedModel};

/// What a request needs of the model that answers it.
#[derive(Clone, Debug)]
pub struct Parts {
    pub model: Arc<ServedModel>,
    pub adapters: Adapters,
    pub engine: EngineHandle,
    pub(crate) grammars: Arc<GrammarCompiler>,
    pub(crate) dialect: Dialect,
    pub metrics: Arc<Metrics>,
}

/// Makes models that share a machine.
#[derive(Debug)]
pub struct Builder {
    /// As they are for the first model.
    pub settings: Arc<Settings>,
    /// Where the others are.
    pub sources: Vec<ModelSource>,
    pub device: Device,
    /// Matrices of all models in memory.
    pub shared: Arc<SharedWeights>,
    pub turns: Arc<Turns>,
    /// The first model's.
    pub metrics: Arc<Metrics>,
}

/// When a model is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Before anything runs that it could disturb.
    AtStart,
    /// While others answer: it gives way to their steps.
    BesideSteps,
}

impl Parts {
    pub(crate) fn new(
        model: ServedModel,
        adapters: Adapters,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        options: &AppOptions,
    ) -> Self {
        let grammars = GrammarCompiler::new(model.tokenizer.clone(), model.eos_tokens.clone());
        Self {
            grammars: Arc::new(grammars),
            dialect: Dialect::new(
                model.template.as_ref(),
                options.tool_syntax,
                options.reasoning,
            ),
            model: Arc::new(model),
            adapters,
            engine,
            metrics,
        }
    }
}

impl Builder {
    pub(super) fn budget_bytes(&self) -> u64 {
        self.settings.fleet.budget_bytes
    }

    /// Requests that may wait for loads: as many as for the steps of an engine.
    pub(super) fn max_waiting(&self) -> usize {
        let max_requests = self.settings.engine.queue.max_requests;
        max_requests.min(Semaphore::MAX_PERMITS)
    }

    /// The models that the settings name beside the first, none of them loaded.
    pub(super) fn members(&self) -> Result<Vec<Member>, FleetError> {
        if self.device.free_bytes().is_some() {
            return Err(FleetError::Gpu);
        }
        let models = self.settings.fleet.models.iter().zip(&self.sources);
        models
            .map(|(model, source)| {
                let name = model.name.clone();
                if models::is_encoder(&source.path) {
                    return Err(FleetError::Encoder { name });
                }
                let start = |error: StartError| FleetError::Start {
                    name: name.clone(),
                    error: Box::new(error),
                };
                let needed = self.estimate(&name, source).map_err(start)?;
                let adapters = model.adapters.clone();
                Ok(Member::new(name, source.clone(), adapters, needed))
            })
            .collect()
    }

    /// The settings of another model: what is said of the first one's name and vectors is not
    /// meant for it.
    fn settings_of(&self, name: &str) -> Settings {
        let mut settings = Settings::clone(&self.settings);
        settings.names = vec![name.to_owned()];
        settings.embeddings = None;
        settings.embedding_model = None;
        settings.adapters = AdapterOptions {
            named: Vec::new(),
            dir: None,
            root: None,
            pinned: Vec::new(),
            journal_dir: None,
            ..settings.adapters
        };
        settings
    }

    /// Bytes of weights as they are stored, KV cache, and a step.
    fn estimate(&self, name: &str, source: &ModelSource) -> Result<u64, StartError> {
        let settings = self.settings_of(name);
        let checkpoint = Checkpoint::open(&source.path)?;
        let config = checkpoint.config();
        let weights = weight_file_bytes(&source.path);
        let memory = FreeMemory::of(None).within(&settings.fleet, weights);
        let plan = MemoryPlan::new(&Needs::new(&settings, config, memory))?;
        let step = ModelRunner::step_bytes(config, settings.max_batched_tokens);
        Ok(weights + plan.n_bytes() + step)
    }

    /// Reads a member and its adapters. Blocks on disk.
    fn read(
        &self,
        member: &Member,
        settings: &Settings,
    ) -> Result<(Loaded, Adapters, Arc<Metrics>), FleetError> {
        let name = &member.name;
        let shared = Arc::clone(&self.shared);
        let loaded = load::load_beside(settings, &member.source, &self.device, shared);
        let loaded = loaded.map_err(|error| FleetError::Start {
            name: name.clone(),
            error: Box::new(error),
        })?;
        let metrics = self.metrics.of_another(name);
        let adapters = match &loaded.runner {
            Runner::Decoder(runner) if settings.adapters.is_enabled() => Adapters::open(
                settings.adapters.clone(),
                (
                    runner.model().adapter_target().clone(),
                    runner.adapters().clone(),
                ),
                loaded.served.kv_root,
                loaded.served.own_names(),
                Arc::clone(&metrics),
            )
            .map_err(|error| FleetError::Failed {
                name: name.clone(),
                message: error.to_string(),
            })?,
            _ => Adapters::none(),
        };
        Ok((loaded, adapters, metrics))
    }

    /// Loads a member and starts its engine. Blocks. The engine's threads have the priority of
    /// this one, so only the reading gives way.
    pub(super) fn build(&self, member: &Member, reading: Reading) -> Result<Resident, FleetError> {
        let name = &member.name;
        let failed = |error: &dyn std::fmt::Display| FleetError::Failed {
            name: name.clone(),
            message: error.to_string(),
        };
        let mut settings = self.settings_of(name);
        settings.adapters.named.clone_from(&member.adapters);
        let read = || self.read(member, &settings);
        let (loaded, adapters, metrics) = match reading {
            Reading::AtStart => read()?,
            Reading::BesideSteps => loader::read(read).map_err(|error| failed(&error))??,
        };
        let Loaded {
            footprint,
            served,
            scheduler,
            runner,
            plan,
            ..
        } = loaded;
        let engine = Engine::start_beside(
            scheduler,
            Box::new(runner),
            settings.engine,
            Arc::clone(&metrics),
            Arc::clone(&self.turns),
        )
        .map_err(|error| failed(&error))?;
        metrics.describe_served(Served {
            model: name.clone(),
            block_size: plan.block_size,
            n_blocks: plan.n_blocks,
        });
        let parts = Parts::new(served, adapters, engine.handle(), metrics, &settings.app);
        Ok(Resident::new(parts, engine, footprint))
    }
}
