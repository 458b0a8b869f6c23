//! Models of the hub, in the hub's own cache layout.

mod files;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::{ModelSource, SourceError, SourceSettings, report};

/// Attempts at one file; each goes on where the last was cut.
const N_ATTEMPTS: u32 = 5;

/// `org/name[@revision][:file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubModel {
    pub(super) id: String,
    pub(super) revision: String,
    pub(super) file: Option<String>,
}

impl HubModel {
    pub(super) fn parse(spec: &str) -> Result<Self, SourceError> {
        let (rest, file) = match spec.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (spec, None),
        };
        let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let id_ok = id.split('/').count() <= 2 && id.split('/').all(plain);
        let revision_ok = revision.split('/').all(plain);
        if !id_ok || !revision_ok || file.is_some_and(|file| !files::is_safe(file)) {
            return Err(SourceError::NotFound(format!(
                "hf:{spec}: a model of the hub is written hf:org/name[@revision][:file]"
            )));
        }
        Ok(Self {
            id: id.to_string(),
            revision: revision.to_string(),
            file: file.map(str::to_string),
        })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone())
    }
}

/// A place to download one model from.
struct Hub<'a> {
    model: &'a HubModel,
    settings: &'a SourceSettings,
    api: ApiRepo,
}

/// Brings a model into the cache. An unreachable hub is no error when the cache has everything.
pub(super) fn fetch(
    model: &HubModel,
    settings: &SourceSettings,
) -> Result<ModelSource, SourceError> {
    let path = if settings.offline {
        cached(model, settings).ok_or_else(|| {
            SourceError::NotFound(format!(
                "{}@{} is not complete in {} and HF_HUB_OFFLINE forbids to download it",
                model.id,
                model.revision,
                settings.hub_cache.display()
            ))
        })?
    } else {
        Hub::new(model, settings)?.fetch()?
    };
    Ok(ModelSource {
        path,
        name: model.id.clone(),
    })
}

/// The model as it is in the cache, if it is complete.
fn cached(model: &HubModel, settings: &SourceSettings) -> Option<PathBuf> {
    let cache = Cache::new(settings.hub_cache.clone()).repo(model.repo());
    let folder = settings.hub_cache.join(model.repo().folder_name());
    let commit = std::fs::read_to_string(folder.join("refs").join(&model.revision));
    // A revision that is a commit has no ref.
    let commit = commit.map_or_else(
        |_| model.revision.clone(),
        |commit| commit.trim().to_string(),
    );
    let snapshot = cache.pointer_path(&commit);
    if let Some(file) = &model.file {
        let path = snapshot.join(file);
        return path.exists().then_some(path);
    }
    let config = snapshot.join("config.json").exists();
    let weights = match files::shards(&snapshot) {
        Ok(Some(shards)) => shards.iter().all(|shard| snapshot.join(shard).exists()),
        Ok(None) => snapshot.join("model.safetensors").exists(),
        Err(_) => false,
    };
    (config && weights).then_some(snapshot)
}

impl<'a> Hub<'a> {
    fn new(model: &'a HubModel, settings: &'a SourceSettings) -> Result<Self, SourceError> {
        let api: Result<Api, ApiError> =
            ApiBuilder::from_cache(Cache::new(settings.hub_cache.clone()))
                .with_endpoint(settings.endpoint.clone())
                .with_token(settings.token.clone())
                .with_user_agent("understudy", env!("CARGO_PKG_VERSION"))
                .build();
        let api = api.map_err(|error| SourceError::Download(error.to_string()))?;
        Ok(Self {
            model,
            settings,
            api: api.repo(model.repo()),
        })
    }

    fn fetch(&self) -> Result<PathBuf, SourceError> {
        let info = match self.api.info() {
            Ok(info) => info,
            // No answer at all: what is in the cache may do.
            Err(error) if status(&error).is_none() => {
                let Some(path) = cached(self.model, self.settings) else {
                    return Err(self.error("", &error));
                };
                report::line(&format!(
                    "{}: the hub cannot be reached, using the cache",
                    self.model.id
                ));
                return Ok(path);
            }
            Err(error) => return Err(self.error("", &error)),
        };
        let names: Vec<String> = info
            .siblings
            .into_iter()
            .map(|sibling| sibling.rfilename)
            .collect();
        if let Some(file) = &self.model.file {
            if !names.contains(file) {
                return Err(SourceError::NotFound(format!(
                    "{} has no file {file}; it has {}",
                    self.model.id,
                    files::listed(&names)
                )));
            }
            return self.file(&info.sha, file);
        }
        for name in files::small(&self.model.id, &names)? {
            self.file(&info.sha, &name)?;
        }
        let snapshot = self.snapshot(&info.sha);
        let weights = files::shards(&snapshot)?.unwrap_or_else(|| vec!["model.safetensors".into()]);
        for name in weights {
            self.file(&info.sha, &name)?;
        }
        Ok(snapshot)
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        let cache = Cache::new(self.settings.hub_cache.clone());
        cache.repo(self.model.repo()).pointer_path(commit)
    }

    /// One file of a commit, from the cache or downloaded.
    fn file(&self, commit: &str, name: &str) -> Result<PathBuf, SourceError> {
        let path = self.snapshot(commit).join(name);
        if path.exists() {
            return Ok(path);
        }
        report::line(&format!("downloading {} {name}", self.model.id));
        let mut attempt = 1;
        let downloaded = loop {
            match self.api.download(name) {
                Ok(downloaded) => break downloaded,
                Err(error) => self.recover(name, &error, attempt)?,
            }
            attempt += 1;
        };
        if downloaded != path {
            return Err(SourceError::Download(format!(
                "{} changed while it was downloaded; start again",
                self.model.id
            )));
        }
        verify::content(&downloaded)?;
        Ok(path)
    }

    /// Decides whether a failed download is tried again.
    fn recover(&self, name: &str, error: &ApiError, attempt: u32) -> Result<(), SourceError> {
        let retry = match status(error) {
            // The part of an earlier download is not a beginning of the file, or all of it.
            Some(416) => {
                verify::remove_parts(&self.blobs());
                true
            }
            Some(429 | 500..=599) | None => true,
            Some(_) => false,
        };
        if matches!(error, ApiError::InvalidResume) {
            verify::remove_parts(&self.blobs());
        }
        if !retry || attempt >= N_ATTEMPTS {
            return Err(self.error(name, error));
        }
        report::line(&format!("{name}: {error}; trying again"));
        std::thread::sleep(Duration::from_millis(200 << attempt));
        Ok(())
    }

    fn blobs(&self) -> PathBuf {
        self.settings
            .hub_cache
            .join(self.model.repo().folder_name())
            .join("blobs")
    }

    /// The error in words that help.
    fn error(&self, file: &str, error: &ApiError) -> SourceError {
        let HubModel { id, revision, .. } = self.model;
        let what = if file.is_empty() {
            format!("{id}@{revision}")
        } else {
            format!("{id}@{revision} {file}")
        };
        let endpoint = &self.settings.endpoint;
        let given = self.settings.token.is_some();
        match status(error) {
            Some(401) if given => SourceError::Refused(format!(
                "{what}: {endpoint} does not accept the token (401); check HF_TOKEN and the name"
            )),
            Some(401) => SourceError::Refused(format!(
                "{what}: {endpoint} wants a token (401), or there is no such model; set HF_TOKEN"
            )),
            Some(403) => SourceError::Refused(format!(
                "{what}: access denied (403); accept the model's terms at {endpoint}/{id}"
            )),
            Some(404) => SourceError::NotFound(format!("{what}: not found at {endpoint} (404)")),
            Some(status) => SourceError::Download(format!("{what}: {endpoint} answers {status}")),
            None => SourceError::Download(format!(
                "{what}: {endpoint} cannot be reached ({error}); \
                 give a directory or a .gguf file instead, or set HF_ENDPOINT to a mirror"
            )),
        }
    }
}

/// The status of an answer that was an error.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => error
            .to_string()
            .strip_prefix("http status: ")?
            .parse()
            .ok(),
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Downloads one file of a pinned commit; for the demo model.
pub(super) fn pinned_file(
    id: &str,
    commit: &str,
    file: &str,
    settings: &SourceSettings,
) -> Result<PathBuf, SourceError> {
    let model = HubModel {
        id: id.into(),
        revision: commit.into(),
        file: Some(file.into()),
    };
    match cached(&model, settings) {
        Some(path) => Ok(path),
        None => Ok(fetch(&model, settings)?.path),
    }
}

/// Whether the hub answers a connection within a few seconds.
pub(super) fn reachable(endpoint: &str) -> bool {
    use std::net::{TcpStream, ToSocketAddrs};
    let (default_port, rest) = match endpoint.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some((_, rest)) => (443, rest),
        None => return false,
    };
    let host = Path::new(rest)
        .components()
        .next()
        .map(|c| c.as_os_str().to_string_lossy().into_owned());
    let Some(host) = host else {
        return false;
    };
    let address = if host.contains(':') {
        host
    } else {
        format!("{host}:{default_port}")
    };
    let addresses = address.to_socket_addrs();
    addresses.is_ok_and(|mut all| {
        all.any(|one| TcpStream::connect_timeout(&one, Duration::from_secs(3)).is_ok())
    })
}
