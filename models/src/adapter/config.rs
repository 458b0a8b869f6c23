//! `adapter_config.json` of PEFT. Every key is acted on, known to be without effect on what a
//! trained adapter computes, or refused by its name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::AdapterError;
use super::pattern::{ModulePattern, NumberPatterns};
use crate::config::Fields;

/// Larger ranks are damaged files, not adapters.
const MAX_RANK: f64 = 65_536.0;

/// Of training, of bookkeeping, or of other methods' initial values.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Acted on below.
const READ: &[&str] = &[
    "alpha_pattern",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Which biases an adapter replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Biases {
    None,
    All,
    LoraOnly,
}

/// What a configuration says.
#[derive(Debug)]
pub(crate) struct PeftConfig {
    pub(crate) base_model: Option<String>,
    rank: f64,
    alpha: f64,
    ranks: NumberPatterns,
    alphas: NumberPatterns,
    is_rank_stabilized: bool,
    pub(crate) is_dora: bool,
    pub(crate) has_lora_bias: bool,
    pub(crate) biases: Biases,
    pub(crate) targets: Option<ModulePattern>,
    excluded: Option<ModulePattern>,
    layers: Option<Vec<u64>>,
    layers_pattern: Option<Vec<String>>,
    pub(crate) saved: Vec<String>,
    pub(crate) ties_weights: bool,
    /// Tokens by the module that they are trained in; without a name, the embedding.
    pub(crate) tokens: BTreeMap<String, Vec<u32>>,
}

impl PeftConfig {
    /// Reads the text of `file`.
    pub(crate) fn read(file: &Path, text: &str) -> Result<Self, AdapterError> {
        let json: Value = serde_json::from_str(text)
            .map_err(|error| AdapterError::refused(file, format!("not valid JSON: {error}")))?;
        let fields = Fields::of_root(file, &json)?;
        if let Some(map) = json.as_object() {
            refuse_unknown(&fields, map)?;
        }
        let kind = fields.str("peft_type")?;
        if kind != "LORA" {
            let message = format!("{kind:?} is not supported; supported: \"LORA\"");
            return Err(fields.error("peft_type", message).into());
        }
        refuse_changed_bases(&fields)?;
        let pattern = |name: &str| {
            let read = fields.get(name).map(ModulePattern::read).transpose();
            read.map_err(|message| fields.error(name, message))
        };
        let numbers = |name: &str| {
            let read = fields.get(name).map(NumberPatterns::read).transpose();
            read.map_err(|message| fields.error(name, message))
        };
        Ok(Self {
            base_model: fields
                .opt_str("base_model_name_or_path")?
                .map(str::to_string),
            rank: fields.number("r")?,
            alpha: fields.number("lora_alpha")?,
            ranks: numbers("rank_pattern")?.unwrap_or_default(),
            alphas: numbers("alpha_pattern")?.unwrap_or_default(),
            is_rank_stabilized: fields.bool_or("use_rslora", false)?,
            is_dora: fields.bool_or("use_dora", false)?,
            has_lora_bias: fields.bool_or("lora_bias", false)?,
            biases: match fields.opt_str("bias")?.unwrap_or("none") {
                "none" => Biases::None,
                "all" => Biases::All,
                "lora_only" => Biases::LoraOnly,
                other => {
                    let message =
                        format!("{other:?} is not supported; supported: none, all, lora_only");
                    return Err(fields.error("bias", message).into());
                }
            },
            targets: pattern("target_modules")?,
            excluded: pattern("exclude_modules")?,
            layers: layers(&fields)?,
            layers_pattern: names(&fields, "layers_pattern")?,
            saved: names(&fields, "modules_to_save")?.unwrap_or_default(),
            ties_weights: fields.bool_or("ensure_weight_tying", false)?,
            tokens: tokens(&fields)?,
        })
    }

    /// The rank that a module must have, and what multiplies `B A`.
    pub(crate) fn rank_and_scale(&self, module: &str) -> Result<(usize, f32), String> {
        let rank = self.ranks.find(module).unwrap_or(self.rank);
        let alpha = self.alphas.find(module).unwrap_or(self.alpha);
        if !(1.0..=MAX_RANK).contains(&rank) || rank.fract() != 0.0 {
            return Err(format!("rank {rank} is not between 1 and {MAX_RANK}"));
        }
        let divisor = if self.is_rank_stabilized {
            rank.sqrt()
        } else {
            rank
        };
        let scale = (alpha / divisor) as f32;
        if !scale.is_finite() {
            return Err(format!("lora_alpha {alpha} is not a finite number"));
        }
        Ok((rank as usize, scale))
    }

    /// Whether PEFT would put low-rank matrices beside this module.
    pub(crate) fn is_target(&self, module: &str, layer: Option<usize>) -> bool {
        let matches = |pattern: &Option<ModulePattern>| {
            pattern.as_ref().is_some_and(|own| own.matches(module))
        };
        if !matches(&self.targets) || matches(&self.excluded) {
            return false;
        }
        let Some(layers) = &self.layers else {
            return true;
        };
        let Some(layer) = layer else { return false };
        let is_named = self.layers_pattern.as_ref().is_none_or(|patterns| {
            let number = layer.to_string();
            let after = module.split('.').skip(1);
            module.split('.').zip(after).any(|(name, part)| {
                part == number && patterns.iter().any(|pattern| pattern == name)
            })
        });
        is_named && layers.contains(&(layer as u64))
    }
}

fn refuse_unknown(fields: &Fields<'_>, map: &Map<String, Value>) -> Result<(), AdapterError> {
    for (key, value) in map {
        let is_known = READ.contains(&&**key) || WITHOUT_EFFECT.contains(&&**key);
        // What is off or absent changes nothing, whatever it is.
        let is_off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_known && !is_off {
            return Err(fields
                .error(
                    key,
                    "is not supported; without it, it would be another adapter",
                )
                .into());
        }
    }
    Ok(())
}

/// Some ways to begin training change the model's own weights as well, and such an adapter does
/// not fit the model as it was before.
fn refuse_changed_bases(fields: &Fields<'_>) -> Result<(), AdapterError> {
    let Some(value) = fields.get("init_lora_weights") else {
        return Ok(());
    };
    let leaves_base = match value {
        Value::Bool(_) => true,
        Value::String(name) => matches!(&**name, "gaussian" | "eva" | "orthogonal"),
        _ => false,
    };
    if leaves_base {
        return Ok(());
    }
    let message = format!(
        "{value} changes the weights of the base model; convert the adapter to plain LoRA \
         (PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
    );
    Err(fields.error("init_lora_weights", message).into())
}

/// A string or a list of strings.
fn names(fields: &Fields<'_>, name: &str) -> Result<Option<Vec<String>>, AdapterError> {
    let names = match fields.get(name) {
        None => return Ok(None),
        Some(Value::String(name)) => Some(vec![name.clone()]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|name| name.as_str().map(str::to_string))
            .collect(),
        Some(_) => None,
    };
    let error = || fields.error(name, "expected a string or a list of them");
    Ok(Some(names.ok_or_else(error)?))
}

/// A number or a list of numbers.
fn layers(fields: &Fields<'_>) -> Result<Option<Vec<u64>>, AdapterError> {
    let name = "layers_to_transform";
    let layers = match fields.get(name) {
        None => return Ok(None),
        Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
        Some(value) => value.as_u64().map(|layer| vec![layer]),
    };
    let error = || fields.error(name, "expected a layer's number or a list of them");
    Ok(Some(layers.ok_or_else(error)?))
}

/// A list of tokens means those of the embedding.
fn tokens(fields: &Fields<'_>) -> Result<BTreeMap<String, Vec<u32>>, AdapterError> {
    let name = "trainable_token_indices";
    let error = || {
        fields.error(
            name,
            "expected a list of token ids, or such lists by module",
        )
    };
    let list = |value: &Value| -> Option<Vec<u32>> {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        value.as_array()?.iter().map(id).collect()
    };
    match fields.get(name) {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(module, value)| Ok((module.clone(), list(value).ok_or_else(error)?)))
            .collect(),
        Some(value) => {
            let list = list(value).ok_or_else(error)?;
            Ok(BTreeMap::from([(String::new(), list)]))
        }
    }
}
