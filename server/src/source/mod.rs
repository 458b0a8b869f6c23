//! Where models come from: a directory, a GGUF file, the hub, or the demo model.

mod demo;
mod hub;
mod report;
mod settings;

use std::path::{Path, PathBuf};

pub use demo::DEMO_NAME;
pub use settings::SourceSettings;

/// A model on this machine's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSource {
    /// A directory in Hugging Face layout, or a `.gguf` file.
    pub path: PathBuf,
    /// The name that the API serves it under unless told otherwise.
    pub name: String,
}

/// A model that cannot be had. Messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing of that name, here or on the hub.
    #[error("{0}")]
    NotFound(String),
    /// The hub refuses: no token, a wrong one, or terms that were not accepted.
    #[error("{0}")]
    Refused(String),
    /// A download failed or brought something else than it should.
    #[error("{0}")]
    Download(String),
}

/// A model that needs nothing from elsewhere: a directory or a file. `None` for models of the
/// hub and for the demo model, which [`resolve`] finds.
pub fn resolve_local(model: Option<&str>) -> Result<Option<ModelSource>, SourceError> {
    match model {
        Some(model) if !model.starts_with("hf:") => local(model).map(Some),
        _ => Ok(None),
    }
}

/// Finds `model` (`None`: the demo model), downloading it if need be; blocks.
pub fn resolve(model: Option<&str>, settings: &SourceSettings) -> Result<ModelSource, SourceError> {
    let Some(model) = model else {
        return Ok(ModelSource {
            path: demo::fetch(settings)?,
            name: DEMO_NAME.to_string(),
        });
    };
    if let Some(spec) = model.strip_prefix("hf:") {
        return hub::fetch(&hub::HubModel::parse(spec)?, settings);
    }
    local(model)
}

/// A directory or a `.gguf` file.
fn local(model: &str) -> Result<ModelSource, SourceError> {
    let path = Path::new(model);
    let name = |part: Option<&std::ffi::OsStr>| {
        part.map_or(model.to_string(), |part| {
            part.to_string_lossy().into_owned()
        })
    };
    if path.is_dir() {
        // `.` and `..` have no name of their own.
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        return Ok(ModelSource {
            path: path.to_path_buf(),
            name: name(whole.file_name()),
        });
    }
    let is_gguf = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    if path.is_file() && is_gguf {
        return Ok(ModelSource {
            path: path.to_path_buf(),
            name: name(path.file_stem()),
        });
    }
    Err(SourceError::NotFound(if path.is_file() {
        format!(
            "{model}: a model is a directory, a .gguf file or hf:org/name, not a file of another kind"
        )
    } else if hub::HubModel::parse(model).is_ok()
        && !model.starts_with(['.', '/'])
        && model.contains('/')
    {
        format!("{model}: no such directory; a model of the hub is written hf:{model}")
    } else {
        format!("{model}: no such directory or .gguf file")
    }))
}

#[cfg(test)]
mod tests;
