//! Adapters as llama.cpp's `convert_lora_to_gguf.py` writes them.

use std::collections::BTreeMap;

use super::AdapterError;
use super::file::{ModuleTensors, Named};
use crate::checkpoint::Tensor;
use crate::{Gguf, GgufValue};

/// Checks that a file is a low-rank adapter; its alpha.
pub(super) fn read_alpha(file: &Gguf) -> Result<f32, AdapterError> {
    let refused = |message: String| AdapterError::refused(file.path(), message);
    let needs = |key: &str, expected: &str| match file.get(key) {
        Some(GgufValue::String(found)) if found == expected => Ok(()),
        Some(other) => Err(refused(format!(
            "metadata `{key}`: expected {expected:?}, found {}",
            other.describe()
        ))),
        None => Err(refused(format!(
            "metadata `{key}` is missing: not an adapter"
        ))),
    };
    needs("general.type", "adapter")?;
    needs("adapter.type", "lora")?;
    for (key, _) in file.metadata() {
        let is_known = matches!(key, "adapter.type" | "adapter.lora.alpha");
        if key.starts_with("adapter.") && !is_known {
            return Err(refused(format!("metadata `{key}` is not supported")));
        }
    }
    match file.get("adapter.lora.alpha") {
        Some(GgufValue::Float(alpha)) if alpha.is_finite() => Ok(*alpha as f32),
        Some(other) => Err(refused(format!(
            "metadata `adapter.lora.alpha`: expected a finite number, found {}",
            other.describe()
        ))),
        None => Err(refused(
            "metadata `adapter.lora.alpha` is missing".to_string(),
        )),
    }
}

/// Puts a tensor to its module.
pub(super) fn sort<'a>(
    modules: &mut BTreeMap<String, ModuleTensors<'a>>,
    name: &str,
    tensor: Tensor<'a>,
) -> Result<(), AdapterError> {
    let ends = [".weight.lora_a", ".weight.lora_b"];
    let found = ends
        .iter()
        .enumerate()
        .find_map(|(which, end)| name.strip_suffix(end).map(|module| (module, which)));
    let Some((module, which)) = found else {
        return Err(AdapterError::refused(
            tensor.file,
            format!("tensor `{name}` is of no kind that is known"),
        ));
    };
    let own = modules.entry(module.to_string()).or_default();
    let is_embedding = module == "token_embd";
    let place = match (which, is_embedding) {
        (0, false) => &mut own.a,
        (0, true) => &mut own.embedding_a,
        (_, false) => &mut own.b,
        (_, true) => &mut own.embedding_b,
    };
    *place = Some(Named {
        name: name.to_string(),
        tensor,
    });
    Ok(())
}
