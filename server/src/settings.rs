//! The command line, resolved and checked once. Nothing below reads arguments or environment.

use std::time::Duration;

use kernels::{KvType, Numerics, WeightType};
use scheduler::Pooling;

mod fleet;
mod parts;

use crate::adapters::AdapterOptions;
use crate::aliases::{Alias, AliasError};
use crate::args::{CacheType, Dtype, EmbeddingPooling, ServeArgs};
use crate::auth::{ApiKeys, KeysError};
use crate::connections::{ConnectionOptions, Tls, TlsError};
use crate::device::DeviceChoice;
use crate::engine::{EngineOptions, QueueLimits};
use crate::files::FilesOptions;
use crate::state::AppOptions;
use crate::store::StoreOptions;
use crate::telemetry::{TraceError, Traces};

pub use fleet::{FleetModel, FleetSettings};

/// An argument that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Traces(#[from] TraceError),
    #[error("--slow-request is {seconds}; expected seconds, 0 for none")]
    SlowRequest { seconds: f64 },
    #[error("--{flag} must be at least 1")]
    Zero { flag: &'static str },
    #[error("--stream-stretch is {factor}; it must be 0 (no limit) or above 1")]
    Stretch { factor: f64 },
    #[error("--{flag} is `{value}`; expected two names with `=` between them")]
    Pair { flag: &'static str, value: String },
    #[error("--alias {text}: {error}")]
    Alias { text: String, error: AliasError },
    #[error("--{flag} names `{name}` twice")]
    Twice { flag: &'static str, name: String },
    #[error(
        "--model {value}: where there are several models, each is NAME=PATH, and a name has no \
         white space and none of `/`, `:`, `@`, `+`, `\"` and `\\`"
    )]
    Model { value: String },
    #[error("--{flag} is for a single model; --model NAME=PATH gives each of several its name")]
    OneModel { flag: &'static str },
    #[error(
        "--adapter {value}: there is no model `{model}`; adapters of a model given with --model \
         are MODEL:NAME=PATH"
    )]
    AdapterOf { value: String, model: String },
    #[error(
        "--alias {alias}: its shadows must be of the same model as all that answer, as they get \
         the same tokens"
    )]
    Shadow { alias: String },
    #[error("--{flag} must not be empty")]
    Empty { flag: &'static str },
    #[error(
        "--quantize {ty:?} with --dtype {dtype:?} makes no sense: --quantize takes a type with \
         fewer bits than 16, and --dtype auto or float32"
    )]
    Quantize { ty: WeightType, dtype: Dtype },
    /// `--served-model-name` takes every word that follows it.
    #[error(
        "--served-model-name takes all words up to the next flag, `{last}` as well, so no MODEL \
         is left; put MODEL first, or write `--` before it"
    )]
    ModelAmongNames { last: String },
    #[error("--cors-origin is `{origin}`; expected an origin such as https://example.org, or *")]
    Origin { origin: String },
    #[error("--{flag} is {value}, but at most {max} is possible")]
    TooLarge {
        flag: &'static str,
        value: usize,
        max: usize,
    },
    #[error(
        "--max-num-batched-tokens ({n_tokens}) must be at least --max-num-seqs ({n_sequences}): \
         every running sequence needs a token in each step"
    )]
    TooFewTokens { n_tokens: usize, n_sequences: usize },
    #[error(
        "--tensor-parallel-size {n} is for GPUs, but --device is cpu; --device cuda takes the \
         first {n}"
    )]
    PartsOnCpu { n: usize },
}

/// What a served model computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    pub numerics: Numerics,
    /// Type that unquantized weights are converted or quantized to; `None` leaves them as stored.
    pub dense: Option<WeightType>,
    pub kv_type: KvType,
}

/// Everything `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub model: Option<String>,
    /// Other models beside it.
    pub fleet: FleetSettings,
    /// How the model's own states become vectors, if they do.
    pub embeddings: Option<Pooling>,
    /// An encoder beside the model.
    pub embedding_model: Option<String>,
    pub host: String,
    pub port: u16,
    pub names: Vec<String>,
    pub app: AppOptions,
    pub adapters: AdapterOptions,
    pub store: StoreOptions,
    pub files: FilesOptions,
    pub max_model_len: Option<usize>,
    pub max_sequences: usize,
    pub max_batched_tokens: usize,
    pub block_size: usize,
    pub kv_memory_bytes: Option<u64>,
    pub prefix_cache: bool,
    pub fairness: bool,
    pub head_start: usize,
    pub engine: EngineOptions,
    pub device: DeviceChoice,
    /// GPUs that compute the model together.
    pub tensor_parallel_size: usize,
    /// No captured graphs on a GPU.
    pub enforce_eager: bool,
    pub n_threads: Option<usize>,
    pub precision: Precision,
    /// Whether the type of the cache was asked for, and not just the one that comes with the rest.
    pub kv_type_asked: bool,
    pub shutdown_timeout: Duration,
    /// Where spans of requests are sent.
    pub traces_url: Option<String>,
    pub connections: ConnectionOptions,
}

impl Settings {
    /// Memory that adapters may take.
    pub fn adapter_bytes(&self) -> u64 {
        if self.adapters.is_enabled() {
            self.adapters.max_bytes
        } else {
            0
        }
    }

    pub fn resolve(args: ServeArgs) -> Result<Self, SettingsError> {
        check_sizes(&args)?;
        check_filled(&args)?;
        check_names(&args)?;
        check_origins(&args.cors_origin)?;
        let named = fleet::models(&args)?;
        let (adapters, fleet) = fleet::with_adapters(named.as_deref(), &args)?;
        let connections = connections(&args)?;
        let app = app(&args, aliases(&args.alias)?)?;
        fleet.check_shadows(&app.aliases)?;
        parts::check(&args)?;
        let first = named.and_then(|named| named.into_iter().next());
        let (names, model) = match first {
            Some((name, path)) => (name.into_iter().collect(), Some(path)),
            None => (args.served_model_name, args.model),
        };
        Ok(Self {
            adapters,
            fleet,
            model,
            embeddings: args.embeddings.map(|pooling| match pooling {
                EmbeddingPooling::Last => Pooling::Last,
                EmbeddingPooling::Mean => Pooling::Mean,
            }),
            embedding_model: args.embedding_model,
            host: args.host,
            port: args.port,
            names,
            app,
            store: StoreOptions {
                max_bytes: args.store_size.unwrap_or(if args.store_dir.is_some() {
                    1 << 30
                } else {
                    256 << 20
                }),
                dir: args.store_dir,
                ttl: seconds(args.store_ttl.saturating_mul(3600)),
                ..StoreOptions::default()
            },
            files: FilesOptions {
                max_file_bytes: args.max_file_size,
                max_bytes: args.files_size,
            },
            max_model_len: args.max_model_len,
            max_sequences: args.max_num_seqs,
            max_batched_tokens: args.max_num_batched_tokens,
            block_size: args.block_size,
            kv_memory_bytes: args.kv_cache_memory,
            prefix_cache: !args.no_enable_prefix_caching,
            fairness: !args.no_fairness,
            head_start: args.fairness_head_start,
            engine: EngineOptions {
                queue: QueueLimits {
                    max_requests: args.max_queued_requests,
                    max_tokens: args.max_queued_tokens,
                    timeout: seconds(args.queue_timeout),
                },
                stretch: stretch(args.stream_stretch)?,
                forces_tokens: true,
                overlaps_steps: !args.no_async_scheduling,
            },
            device: args.device,
            tensor_parallel_size: args.tensor_parallel_size,
            enforce_eager: args.enforce_eager,
            n_threads: args.threads,
            kv_type_asked: args.kv_type.is_some(),
            precision: Precision::of(args.dtype, args.quantize)?.with_cache(args.kv_type),
            shutdown_timeout: Duration::from_secs(args.shutdown_timeout),
            traces_url: args.otlp_endpoint.as_deref().map(Traces::url).transpose()?,
            connections,
        })
    }
}

fn adapters(
    args: &ServeArgs,
    named: Vec<(String, String)>,
) -> Result<AdapterOptions, SettingsError> {
    if args.max_loaded_adapters == 0 {
        return Err(SettingsError::Zero {
            flag: "max-loaded-adapters",
        });
    }
    Ok(AdapterOptions {
        named: named
            .into_iter()
            .map(|(name, path)| (name, path.into()))
            .collect(),
        dir: args.adapter_dir.clone(),
        root: args.adapter_root.clone(),
        max_loaded: args.max_loaded_adapters,
        max_bytes: args.adapter_memory,
        journal_dir: args
            .adapter_root
            .as_ref()
            .and_then(|_| args.store_dir.clone()),
        pinned: args.pin.clone(),
    })
}

fn app(args: &ServeArgs, aliases: Vec<Alias>) -> Result<AppOptions, SettingsError> {
    Ok(AppOptions {
        keys: ApiKeys::open(
            args.api_key.iter().map(String::as_str),
            args.admin_key.iter().map(String::as_str),
            args.api_keys.clone(),
        )?,
        max_body_bytes: usize::try_from(args.max_body_size).unwrap_or(usize::MAX),
        max_choices: args.max_choices_per_request,
        seed: args.seed,
        tool_syntax: args.tool_call_parser,
        reasoning: args.reasoning_parser,
        request_timeout: seconds(args.request_timeout),
        allow_priority: args.allow_priority,
        unknown_params: args.unknown_params,
        cors_origins: args.cors_origin.clone(),
        slow_request: slow_request(args.slow_request)?,
        aliases,
    })
}

fn connections(args: &ServeArgs) -> Result<ConnectionOptions, SettingsError> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::open(certificate.clone(), key.clone())?),
        // The command line asks for both or none.
        _ => None,
    };
    Ok(ConnectionOptions {
        max_connections: args.max_connections,
        max_body_bytes: args.max_body_size.saturating_mul(BODIES_AT_ONCE),
        tls,
    })
}

/// Aliases, each name once.
fn aliases(texts: &[String]) -> Result<Vec<Alias>, SettingsError> {
    let mut aliases: Vec<Alias> = Vec::with_capacity(texts.len());
    for text in texts {
        let wrong = |error| SettingsError::Alias {
            text: text.clone(),
            error,
        };
        let alias = Alias::parse(text).map_err(wrong)?;
        if aliases.iter().any(|earlier| earlier.name == alias.name) {
            let (flag, name) = ("alias", alias.name);
            return Err(SettingsError::Twice { flag, name });
        }
        aliases.push(alias);
    }
    Ok(aliases)
}

/// `NAME=VALUE`, each name once.
fn pairs(flag: &'static str, values: &[String]) -> Result<Vec<(String, String)>, SettingsError> {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(values.len());
    for value in values {
        let pair = value.split_once('=');
        let Some((name, target)) = pair.filter(|(name, to)| !name.is_empty() && !to.is_empty())
        else {
            let value = value.clone();
            return Err(SettingsError::Pair { flag, value });
        };
        if pairs.iter().any(|(earlier, _)| earlier == name) {
            let name = name.to_owned();
            return Err(SettingsError::Twice { flag, name });
        }
        pairs.push((name.to_owned(), target.to_owned()));
    }
    Ok(pairs)
}

/// A time with a fraction; 0 is none.
fn slow_request(seconds: f64) -> Result<Option<Duration>, SettingsError> {
    let time = Duration::try_from_secs_f64(seconds);
    let time = time.map_err(|_| SettingsError::SlowRequest { seconds })?;
    Ok((!time.is_zero()).then_some(time))
}

/// A time; 0 is none.
fn seconds(n: u64) -> Option<Duration> {
    (n > 0).then(|| Duration::from_secs(n))
}

/// How much longer a step may be; 0 is no limit.
fn stretch(factor: f64) -> Result<Option<f64>, SettingsError> {
    if factor == 0.0 {
        Ok(None)
    } else if factor > 1.0 && factor.is_finite() {
        Ok(Some(factor))
    } else {
        Err(SettingsError::Stretch { factor })
    }
}

impl Precision {
    /// Whether unquantized weights are quantized on load.
    pub fn quantizes(&self) -> bool {
        self.dense.is_some_and(WeightType::is_quantized)
    }

    /// The same, with keys and values cached as was asked for, if it was.
    fn with_cache(self, asked: Option<CacheType>) -> Self {
        let kv_type = match asked {
            Some(CacheType::Bfloat16) => KvType::Bf16,
            Some(CacheType::Float32) => KvType::F32,
            Some(CacheType::Int8) => KvType::Int8,
            Some(CacheType::Fp8) => KvType::Fp8,
            None => self.kv_type,
        };
        Self { kv_type, ..self }
    }

    fn of(dtype: Dtype, quantize: Option<WeightType>) -> Result<Self, SettingsError> {
        let (numerics, dense, kv_type) = match dtype {
            Dtype::Auto => (Numerics::Native, None, KvType::Bf16),
            Dtype::Bfloat16 => (Numerics::Native, Some(WeightType::BF16), KvType::Bf16),
            Dtype::Float32 => (Numerics::F32, None, KvType::F32),
        };
        let dense = match (dense, quantize) {
            (_, None) => dense,
            (None, Some(ty)) if ty.is_quantized() => Some(ty),
            (_, Some(ty)) => return Err(SettingsError::Quantize { ty, dtype }),
        };
        Ok(Self {
            numerics,
            dense,
            kv_type,
        })
    }
}

/// Origins are compared letter by letter: one with a path would never match.
fn check_origins(origins: &[String]) -> Result<(), SettingsError> {
    let is_origin = |text: &str| {
        text.split_once("://").is_some_and(|(scheme, host)| {
            let is_plain = |c: char| c.is_ascii_graphic() && c != '/';
            !scheme.is_empty() && !host.is_empty() && host.chars().all(is_plain)
        })
    };
    match origins.iter().find(|text| *text != "*" && !is_origin(text)) {
        None => Ok(()),
        Some(origin) => Err(SettingsError::Origin {
            origin: origin.clone(),
        }),
    }
}

/// Refuses keys and names that are blank.
fn check_filled(args: &ServeArgs) -> Result<(), SettingsError> {
    for (flag, values) in [
        ("api-key", &args.api_key),
        ("admin-key", &args.admin_key),
        ("served-model-name", &args.served_model_name),
    ] {
        if values.iter().any(|value| value.trim().is_empty()) {
            return Err(SettingsError::Empty { flag });
        }
    }
    Ok(())
}

/// A name that looks like a model was meant to be one.
fn check_names(args: &ServeArgs) -> Result<(), SettingsError> {
    match args.served_model_name.last() {
        Some(last)
            if args.model.is_none()
                && (last.starts_with("hf:") || std::path::Path::new(last).exists()) =>
        {
            Err(SettingsError::ModelAmongNames { last: last.clone() })
        }
        _ => Ok(()),
    }
}

/// Bodies of the greatest size that there may be at a time.
const BODIES_AT_ONCE: u64 = 8;
/// Most that each size can be. Beyond it are typing errors; below it, memory decides.
const MAX_BLOCK_SIZE: usize = 1024;
const MAX_SEQUENCES: usize = 1 << 16;
const MAX_BATCHED_TOKENS: usize = 1 << 20;
const MAX_THREADS: usize = 1024;

fn check_sizes(args: &ServeArgs) -> Result<(), SettingsError> {
    let sizes = [
        ("max-model-len", args.max_model_len),
        ("max-num-seqs", Some(args.max_num_seqs)),
        ("max-num-batched-tokens", Some(args.max_num_batched_tokens)),
        ("block-size", Some(args.block_size)),
        ("max-queued-requests", Some(args.max_queued_requests)),
        ("max-queued-tokens", Some(args.max_queued_tokens)),
        ("max-connections", Some(args.max_connections)),
        ("threads", args.threads),
    ];
    if let Some((flag, _)) = sizes.iter().find(|(_, size)| *size == Some(0)) {
        return Err(SettingsError::Zero { flag });
    }
    let bounds = [
        ("block-size", args.block_size, MAX_BLOCK_SIZE),
        ("max-num-seqs", args.max_num_seqs, MAX_SEQUENCES),
        (
            "max-num-batched-tokens",
            args.max_num_batched_tokens,
            MAX_BATCHED_TOKENS,
        ),
        ("threads", args.threads.unwrap_or(1), MAX_THREADS),
    ];
    if let Some(&(flag, value, max)) = bounds.iter().find(|(_, value, max)| value > max) {
        return Err(SettingsError::TooLarge { flag, value, max });
    }
    if args.max_num_batched_tokens < args.max_num_seqs {
        return Err(SettingsError::TooFewTokens {
            n_tokens: args.max_num_batched_tokens,
            n_sequences: args.max_num_seqs,
        });
    }
    Ok(())
}

/// A number of bytes, with or without a unit: `2GiB`, `500MB`, `1048576`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("b", 1),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    let text = text.trim();
    let n_digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(n_digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit);
    let factor = factor.map(|(_, factor)| *factor);
    let number = number.parse::<f64>().ok().filter(|number| *number > 0.0);
    match (number, factor) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "positive, and rounding to whole bytes is meant"
        )]
        (Some(number), Some(factor)) => Ok((number * factor as f64) as u64),
        _ => Err("expected a number of bytes such as 2GiB, 500MB or 1048576".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};

    fn resolve(arguments: &[&str]) -> Result<Settings, SettingsError> {
        let command = Args::command_of([&["understudy", "serve"], arguments].concat());
        match command.unwrap() {
            Command::Serve(args) => Settings::resolve(*args),
            _ => unreachable!("serve was given"),
        }
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("1.5 kb"), Ok(1500));
        assert_eq!(parse_bytes("77"), Ok(77));
        for wrong in ["", "GiB", "2 parsecs", "-1", "0"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_become_settings() {
        let settings = resolve(&[
            "m.gguf",
            "--served-model-name",
            "a",
            "b",
            "--dtype",
            "float32",
            "--kv-cache-memory",
            "1GiB",
        ])
        .unwrap();
        assert_eq!(settings.model.as_deref(), Some("m.gguf"));
        assert_eq!(settings.names, ["a", "b"]);
        assert_eq!(settings.precision.kv_type, KvType::F32);
        let small = resolve(&["--dtype", "float32", "--kv-type", "fp8"]).unwrap();
        assert_eq!(small.precision.kv_type, KvType::Fp8);
        assert_eq!(settings.kv_memory_bytes, Some(1 << 30));
        assert!(settings.prefix_cache);
    }

    #[test]
    fn a_model_among_the_names_is_noticed() {
        let here = env!("CARGO_MANIFEST_DIR");
        for words in [
            ["--served-model-name", "a", here],
            ["--served-model-name", "a", "hf:org/name"],
        ] {
            let error = resolve(&words).unwrap_err().to_string();
            assert!(
                error.contains(words[2]) && error.contains("MODEL first"),
                "{error}"
            );
        }
        let parted = resolve(&["--served-model-name", "a", "--", here]).unwrap();
        assert_eq!(parted.model.as_deref(), Some(here));
        assert_eq!(parted.names, ["a"]);
        assert_eq!(resolve(&["--served-model-name", "a"]).unwrap().names, ["a"]);
    }

    #[test]
    fn absurd_sizes_are_refused_by_flag() {
        for flag in [
            "max-num-seqs",
            "max-num-batched-tokens",
            "threads",
            "block-size",
        ] {
            let error = resolve(&[&format!("--{flag}"), "99999999999"]).unwrap_err();
            assert!(
                matches!(&error, SettingsError::TooLarge { flag: found, .. } if *found == flag),
                "{error}"
            );
        }
    }

    #[test]
    fn senseless_sizes_are_refused_by_flag() {
        let error = resolve(&["--max-num-seqs", "0"]).unwrap_err();
        assert_eq!(error.to_string(), "--max-num-seqs must be at least 1");
        assert!(resolve(&["--block-size", "4096"]).is_err());
        assert!(resolve(&["--max-num-batched-tokens", "8"]).is_err());
        assert!(resolve(&["--api-key", " "]).is_err());
    }
}
