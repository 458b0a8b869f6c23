//! The command line, as it was typed. Names are vLLM's where it has the flag.

mod explain;
mod layers;
mod variables;

use std::ffi::OsString;

use clap::error::ErrorKind;
use kernels::WeightType;

use crate::commands::{
    AdaptersArgs, ConvertArgs, EvalQuantArgs, MergeArgs, PlanArgs, QuantizeArgs, parse_weight_type,
};

use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use layers::{Origin, Told};

/// Serves fine-tuned open models behind the OpenAI API.
#[derive(Clone, Debug, Parser)]
#[command(name = "understudy", version, about, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Flags that are not those of a command.
const OWN_FLAGS: [&str; 4] = ["-h", "--help", "-V", "--version"];

impl Args {
    /// Variables that look as if they were of a setting, and are of none: typing errors.
    pub fn unknown_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
        variables::unknown(&layers::with_variables(Self::command()), variables)
    }

    /// What a command line asks for; it begins with the program's name. Without a command it is
    /// `serve`, of the demo model if there are no flags either.
    pub fn command_of<T: Into<OsString>>(
        line: impl IntoIterator<Item = T>,
    ) -> Result<Command, clap::Error> {
        let mut line = line.into_iter().map(Into::into);
        let program = line.next().unwrap_or_else(|| "understudy".into());
        let mut words: Vec<OsString> = line.collect();
        let first = words
            .first()
            .map(|word| word.to_string_lossy().into_owned());
        let is_command = first
            .as_deref()
            .is_some_and(|word| !word.starts_with('-') || OWN_FLAGS.contains(&word));
        if !is_command {
            words.insert(0, "serve".into());
        }
        words.insert(0, program);
        let known = layers::with_variables(Self::command());
        let parsed = layers::read(&known, &words).and_then(|layered| {
            let args = Self::from_arg_matches(&layered.matches)?;
            Ok((args.command, layered.told))
        });
        match parsed {
            Ok((Command::Config(args), told)) => {
                Ok(Command::Config(Box::new(ConfigArgs { told, ..*args })))
            }
            Ok((command, _)) => Ok(command),
            Err(error) if error.kind() == ErrorKind::InvalidSubcommand => {
                let word = first.unwrap_or_default();
                let message = format!(
                    "there is no command '{word}'; to serve a model of that name: \
                     understudy serve {word}"
                );
                Err(Self::command().error(ErrorKind::InvalidSubcommand, message))
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve a model (the default command).
    Serve(Box<ServeArgs>),
    /// Print the settings of a server, as a file for --config or with their origins; takes what
    /// `serve` takes.
    Config(Box<ConfigArgs>),
    /// Look whether a server can run here, and say what to change; takes what `serve` takes.
    Doctor(Box<ServeArgs>),
    /// Download a model and print where it is.
    Fetch(FetchArgs),
    /// Ask a running server how it is; the exit code is 0 if it is well.
    Healthcheck(HealthcheckArgs),
    Adapters(AdaptersArgs),
    Bench(Box<load::BenchArgs>),
    Plan(Box<PlanArgs>),
    Convert(ConvertArgs),
    Quantize(QuantizeArgs),
    Merge(MergeArgs),
    EvalQuant(EvalQuantArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub struct HealthcheckArgs {
    /// Host that the server listens on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port that the server listens on.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// What to ask: live (does the process work), ready (does it take requests), or startup
    /// (is the model loaded).
    #[arg(long, value_enum, default_value_t = Probe::Ready)]
    pub probe: Probe,
    /// The server speaks TLS. Its certificate is not verified.
    #[arg(long)]
    pub tls: bool,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub timeout: u64,
}

/// What a health check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    Live,
    Ready,
    Startup,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct FetchArgs {
    /// hf:org/name[@revision][:file]; without it, the demo model.
    pub model: Option<String>,
}

#[derive(Clone, Debug, ClapArgs)]
pub struct ConfigArgs {
    /// Show each setting with its value and where that comes from.
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The settings with their origins.
    #[arg(skip)]
    pub told: Vec<Told>,
}

impl ConfigArgs {
    /// What the command prints.
    pub fn text(&self) -> String {
        if self.explain {
            explain::table(&self.told)
        } else {
            explain::file(&self.told)
        }
    }
}

#[derive(Clone, Debug, ClapArgs)]
pub struct ServeArgs {
    /// A directory in Hugging Face layout, a .gguf file, or hf:org/name[@revision][:file].
    /// Without it, the demo model.
    pub model: Option<String>,

    /// One of several models in one process, and its name; repeated for each. The first is the
    /// one that a single MODEL would be.
    #[arg(
        id = "models",
        long = "model",
        value_name = "NAME=PATH",
        conflicts_with = "model"
    )]
    pub models: Vec<String>,
    /// Memory for all models together: weights, KV caches, and what steps work in. Those that it
    /// has no room for are loaded when they are first asked for, and make others go that are not
    /// in use. Default: nine tenths of what is free.
    #[arg(long, value_name = "BYTES", value_parser = crate::settings::parse_bytes, requires = "models")]
    pub model_memory: Option<u64>,

    /// A file of settings (TOML): `port = 8080` is --port 8080. Flags go before variables of the
    /// environment (UNDERSTUDY_ and the flag's name; docs/operations.md), those before the file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,

    /// Answer /v1/embeddings by the model's own states: that of the last token, or the mean of
    /// all. What the model was trained with, its card tells.
    #[arg(
        long,
        value_enum,
        value_name = "POOLING",
        conflicts_with = "embedding_model"
    )]
    pub embeddings: Option<EmbeddingPooling>,
    /// An encoder to answer /v1/embeddings beside MODEL: a directory in the layout of
    /// sentence-transformers. (An encoder may also be MODEL itself.)
    #[arg(long, value_name = "PATH")]
    pub embedding_model: Option<String>,

    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Names that requests call the model by; the first is shown. Default: the model's own name.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub served_model_name: Vec<String>,
    /// A key that requests must bring as a bearer token; may be repeated. Each is a tenant of
    /// its own, and tenants share the machine alike.
    #[arg(
        long,
        value_name = "KEY",
        env = "UNDERSTUDY_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Vec<String>,

    /// A key that may also load and unload adapters; may be repeated.
    #[arg(
        long,
        value_name = "KEY",
        env = "UNDERSTUDY_ADMIN_KEY",
        hide_env_values = true
    )]
    pub admin_key: Vec<String>,

    /// A file of keys, with names, scopes, lists of models and adapters, and limits for each
    /// (TOML; docs/operations.md). It is read anew when it changes, and on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub api_keys: Option<std::path::PathBuf>,

    /// A LoRA adapter in PEFT layout (a directory) or GGUF, loaded at the start; may be repeated.
    /// MODEL:NAME=PATH is one of another model than the first.
    #[arg(long, value_name = "NAME=PATH")]
    pub adapter: Vec<String>,
    /// A directory of adapters; each is loaded when it is first asked for, by the name of its
    /// directory or file, and again when its files have changed.
    #[arg(long, value_name = "DIR")]
    pub adapter_dir: Option<std::path::PathBuf>,
    /// Let admins load adapters from below this directory while the server runs
    /// (POST /v1/load_lora_adapter). Without any key, everybody is an admin.
    #[arg(long, value_name = "DIR")]
    pub adapter_root: Option<std::path::PathBuf>,
    /// Most adapters in memory; those not used for longest go first.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_loaded_adapters: usize,
    /// Most memory for adapters, such as 2GiB.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = crate::settings::parse_bytes)]
    pub adapter_memory: u64,
    /// An adapter that never leaves memory, loaded at the start; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub pin: Vec<String>,
    /// Another name for the model or for an adapter, such as gpt-4o-mini=NAME; may be repeated.
    /// With weights, such as gpt-4o-mini=BASE*90,TUNED*10,NEXT*shadow:5, requests are dealt out,
    /// and shadows get copies of so many percent of them, whose answers are dropped.
    #[arg(long, value_name = "ALIAS=NAME")]
    pub alias: Vec<String>,

    /// Most tokens of one sequence, prompt and answer together. Default: the model's own limit.
    #[arg(long, value_name = "TOKENS")]
    pub max_model_len: Option<usize>,
    /// Most sequences that run at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_num_seqs: usize,
    /// Most tokens computed in one step. Smaller: steadier streams; larger: faster prompts.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub max_num_batched_tokens: usize,
    /// How many times as long a step may become by prompts, while other requests stream.
    /// Smaller: steadier streams; larger: faster prompts; 0: no limit but the tokens of a step.
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0)]
    pub stream_stretch: f64,
    /// Tokens in one block of the KV cache.
    #[arg(long, value_name = "TOKENS", default_value_t = 16)]
    pub block_size: usize,
    /// Memory for the KV cache, such as 2GiB or 500MB. Default: by need and by free memory.
    #[arg(long, value_name = "BYTES", value_parser = crate::settings::parse_bytes)]
    pub kv_cache_memory: Option<u64>,
    /// Do not reuse the KV blocks of earlier requests with the same beginning.
    #[arg(long)]
    pub no_enable_prefix_caching: bool,
    /// Requests that may wait; more are refused with status 429.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_queued_requests: usize,
    /// Prompt tokens of waiting requests; more are refused with status 429.
    #[arg(long, value_name = "TOKENS", default_value_t = 262_144)]
    pub max_queued_tokens: usize,
    /// Seconds that a request may wait for its first step; 0: as long as its client.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub queue_timeout: u64,
    /// Seconds for a whole request that brings no time of its own; 0: as long as it takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub request_timeout: u64,
    /// Serve first come, first served, instead of API keys and adapters alike.
    #[arg(long)]
    pub no_fairness: bool,
    /// Tokens by which an API key or adapter that comes back may be served before those that were
    /// served meanwhile. Larger: whoever asks for little waits less; 0: strict turns.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub fairness_head_start: usize,
    /// What becomes of parameters that the API does not have: refuse (status 400 that names one),
    /// or warn (in the log, and the request is answered as if they were not there).
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = crate::handlers::UnknownParams::Refuse)]
    pub unknown_params: crate::handlers::UnknownParams,
    /// Let requests ask to go before others (`priority` below 0, `service_tier: priority`).
    #[arg(long)]
    pub allow_priority: bool,
    /// Most answers of one request: its prompts times `n` (or `best_of`).
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_choices_per_request: u32,
    /// Serve HTTPS with this chain of certificates (PEM). It is read anew when it changes, and on
    /// SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<std::path::PathBuf>,
    /// The key of the first certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<std::path::PathBuf>,
    /// Most connections at a time; beyond, those that have been idle for longest are closed.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_connections: usize,
    /// Largest request body, such as 32MiB.
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = crate::settings::parse_bytes)]
    pub max_body_size: u64,

    /// Directory for stored responses, conversations and chat completions; one process owns it.
    /// Without it they are kept in memory and end with the process.
    #[arg(long, value_name = "DIR")]
    pub store_dir: Option<std::path::PathBuf>,
    /// Hours that a stored object is kept after it was last written; 0: for ever.
    #[arg(long, value_name = "HOURS", default_value_t = 720)]
    pub store_ttl: u64,
    /// Most bytes of all stored objects; then those that would end first go first. Default: 1GiB
    /// with --store-dir, else 256MiB.
    #[arg(long, value_name = "BYTES", value_parser = crate::settings::parse_bytes)]
    pub store_size: Option<u64>,
    /// Largest file that may be uploaded; files need --store-dir.
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = crate::settings::parse_bytes)]
    pub max_file_size: u64,
    /// Most bytes of all uploaded files, which --store-size does not count; beyond, uploads are
    /// refused.
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = crate::settings::parse_bytes)]
    pub files_size: u64,
    /// An origin whose web pages may read answers, such as https://example.org, or * for all; may
    /// be repeated.
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,

    /// How the model writes tool calls: hermes, llama3, mistral, granite, deepseek, qwen3-coder,
    /// pythonic, tool-code, gemma, harmony or json. Default: as its chat template tells.
    #[arg(long, value_name = "FAMILY")]
    pub tool_call_parser: Option<crate::answer::ToolSyntax>,

    /// Where to compute: auto (the first GPU if there is one, else the CPU), cpu, cuda, or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: crate::device::DeviceChoice,
    /// On a GPU, start every kernel by itself instead of whole steps as captured graphs.
    #[arg(long)]
    pub enforce_eager: bool,
    /// On a GPU, plan each step when the one before has ended, instead of while it runs.
    #[arg(long)]
    pub no_async_scheduling: bool,
    /// GPUs that compute the model together, each a part of every layer: those from --device on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub tensor_parallel_size: usize,
    /// How the model writes down its thoughts: none, think (<think>...</think>) or harmony
    /// (channels). Default: as its chat template tells.
    #[arg(long, value_name = "FORM")]
    pub reasoning_parser: Option<crate::answer::ReasoningSyntax>,

    /// Threads that compute. Default: as many as this process may use.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Base of the seeds of requests that bring none; the same requests in the same order then
    /// get the same answers.
    #[arg(long)]
    pub seed: Option<u64>,
    /// auto: weights as stored, KV cache in bfloat16. bfloat16: unquantized weights in bfloat16
    /// as well. float32: exact arithmetic and KV cache in float32 (slow).
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    pub dtype: Dtype,
    /// What keys and values are cached in. int8 and fp8 take half the memory of bfloat16, and
    /// answers differ a little. Default: bfloat16, or float32 with --dtype float32.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub kv_type: Option<CacheType>,
    /// Quantize unquantized weights when they are loaded: q8_0, q6_k, q5_k, q4_k, q4_0, ... The
    /// embedding and the head keep more bits; norms and routers stay as they are.
    #[arg(long, value_name = "TYPE", value_parser = parse_weight_type)]
    pub quantize: Option<WeightType>,

    /// Seconds that running requests have to finish when the server is told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub shutdown_timeout: u64,
    /// Log requests that take longer, with the time of each phase; 0: none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub slow_request: f64,
    /// Send a span of each request, with its phases, to an OpenTelemetry collector (OTLP over HTTP),
    /// such as http://localhost:4318.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Which states of a decoder become a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmbeddingPooling {
    Last,
    Mean,
}

/// What to compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Auto,
    Bfloat16,
    Float32,
}

/// What keys and values are cached in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheType {
    #[value(alias = "bf16")]
    Bfloat16,
    #[value(alias = "f32")]
    Float32,
    Int8,
    /// E4M3.
    #[value(alias = "fp8_e4m3")]
    Fp8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        Args::command_of([&["understudy"], words].concat())
    }

    #[test]
    fn flags_without_a_command_are_those_of_serve() {
        for (words, port) in [(&[][..], 8000), (&["--port", "9000"], 9000)] {
            match parse(words) {
                Ok(Command::Serve(args)) => assert_eq!(args.port, port),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(parse(&["fetch"]), Ok(Command::Fetch(_))));
        let version = parse(&["--version"]).unwrap_err();
        assert_eq!(version.kind(), ErrorKind::DisplayVersion);
        assert_eq!(parse(&["-h"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("understudy.toml");
        let text = "model = 'm.gguf'\nport = 9000\nmax-num-seqs = 7\nno-fairness = true\n\
                    served-model-name = ['a', 'b']\ncors-origin = 'https://a.example'\n\
                    [adapter]\none = 'dir/one'\n";
        std::fs::write(&path, text).unwrap();
        let file = path.to_str().unwrap();
        let words = ["serve", "--config", file, "--port", "9001"];
        let Ok(Command::Serve(args)) = parse(&words) else {
            panic!("{:?}", parse(&words));
        };
        assert_eq!(
            (args.port, args.max_num_seqs, args.max_num_batched_tokens),
            (9001, 7, 512)
        );
        assert_eq!(args.model.as_deref(), Some("m.gguf"));
        assert!(args.no_fairness);
        assert_eq!(args.served_model_name, ["a", "b"]);
        assert_eq!(args.adapter, ["one=dir/one"]);
        let words = [
            "config",
            "--explain",
            "--config",
            file,
            "--api-key",
            "s3cret",
        ];
        let Ok(Command::Config(args)) = parse(&words) else {
            panic!("{:?}", parse(&words));
        };
        let origin = |name: &str| {
            let told = args.told.iter().find(|told| told.name == name).unwrap();
            told.origin.clone()
        };
        assert_eq!(origin("port"), Origin::File(path.clone()));
        assert_eq!(origin("model"), Origin::File(path.clone()));
        assert_eq!(origin("block-size"), Origin::Default);
        assert_eq!(origin("api-key"), Origin::Flag);
        let (table, written) = (explain::table(&args.told), explain::file(&args.told));
        assert!(
            !table.contains("s3cret") && !written.contains("s3cret"),
            "{table}{written}"
        );
        // What is printed is a file that says the same.
        std::fs::write(&path, &written).unwrap();
        let Ok(Command::Serve(again)) = parse(&["serve", "--config", file]) else {
            panic!("{written}");
        };
        assert_eq!(again.port, 9000);
        assert_eq!(again.adapter, ["one=dir/one"]);
        assert_eq!(again.served_model_name, ["a", "b"]);
    }

    #[test]
    fn what_a_file_cannot_say_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("understudy.toml");
        let file = path.to_str().unwrap();
        for (text, word) in [
            ("prot = 1", "no setting `prot`"),
            ("config = 'x'", "no setting `config`"),
            ("help = true", "no setting `help`"),
            ("port = 'high'", "'high'"),
            ("port = [1, 2]", "`port` is one string or number"),
            ("no-fairness = 'yes'", "`no-fairness` is true or false"),
            ("port = 1\nport = 2", "duplicate key"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = parse(&["serve", "--config", file]).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(file), "{error}");
        }
    }

    #[test]
    fn every_setting_has_a_variable() {
        let known = layers::with_variables(Args::command());
        let serve = known.find_subcommand("serve").unwrap();
        let variable = |long: &str| {
            let arg = serve
                .get_arguments()
                .find(|arg| arg.get_long() == Some(long));
            arg.unwrap().get_env().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(variable("max-num-seqs"), "UNDERSTUDY_MAX_NUM_SEQS");
        assert_eq!(variable("port"), "UNDERSTUDY_HTTP_PORT");
        assert_eq!(variable("config"), "UNDERSTUDY_CONFIG");
        let without = serve.get_arguments().filter(|arg| arg.get_env().is_none());
        let without: Vec<&str> = without.map(|arg| arg.get_id().as_str()).collect();
        assert!(
            without.iter().all(|id| ["help", "version"].contains(id)),
            "{without:?}"
        );
    }

    #[test]
    fn a_model_without_a_command_is_told_the_command() {
        let error = parse(&["./model", "--port", "1"]).unwrap_err().to_string();
        assert!(error.contains("understudy serve ./model"), "{error}");
    }
}
