//! The `understudy` command.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use kernels::Device;
use models::SharedWeights;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use understudy::adapters::Adapters;
use understudy::app::router;
use understudy::args::{Args, Command, LogFormat};
use understudy::auth::UsageLog;
use understudy::banner::Banner;
use understudy::embedder::{Embedder, EmbeddingModel};
use understudy::engine::Engine;
use understudy::files::Files;
use understudy::fleet::{Builder, Fleet, FleetError};
use understudy::load::{Footprint, Loaded, LoadedEncoder, Runner, load, load_encoder};
use understudy::metrics::{Metrics, Served};
use understudy::plan::MemoryPlan;
use understudy::reload::{Hangups, Reloads};
use understudy::settings::Settings;
use understudy::shutdown::Engines;
use understudy::source::{ModelSource, SourceError, SourceSettings};
use understudy::startup::Front;
use understudy::state::{AppState, ServedModel};
use understudy::store::Store;
use understudy::telemetry::Traces;
use understudy::{doctor, healthcheck, shutdown, source};

/// Threads for HTTP; the model has its own.
const HTTP_THREADS: usize = 2;

fn main() -> ExitCode {
    // What clap has to say, help as well, it prints itself.
    let command = Args::command_of(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let is_json = matches!(&command, Command::Serve(args) if args.log_format == LogFormat::Json);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_json => {
            tracing::error!(error = %format!("{error:#}"), "the server ends");
            ExitCode::FAILURE
        }
        Err(error) => {
            // If standard error is closed, the exit code still tells.
            writeln!(io::stderr(), "understudy: error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Fetch(args) => {
            init_log(LogFormat::Text);
            let source = find(args.model.as_deref())?;
            writeln!(io::stdout(), "{}", source.path.display())?;
            Ok(())
        }
        Command::Healthcheck(args) => Ok(healthcheck::check(&args)?),
        Command::Config(args) => tell(&args.text()),
        Command::Doctor(args) => doctor::run(*args),
        Command::Adapters(args) => tell(&args.run()?),
        Command::Bench(args) => tell(&load::run(*args)?),
        Command::Plan(args) => tell(&args.run()?),
        Command::Convert(args) => tell(&args.run()?),
        Command::Quantize(args) => tell(&args.run()?),
        Command::Merge(args) => tell(&args.run()?),
        Command::EvalQuant(args) => tell(&args.run()?),
        Command::Serve(args) => {
            init_log(args.log_format);
            for name in Args::unknown_variables(std::env::vars_os()) {
                tracing::warn!("the variable {name} is of no setting and is ignored");
            }
            serve(Settings::resolve(*args)?)
        }
    }
}

/// Runs of commands end with what they have to say.
fn tell(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn init_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,understudy=info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The model on this machine's disk, downloaded first if need be.
fn find(model: Option<&str>) -> Result<ModelSource, SourceError> {
    match source::resolve_local(model)? {
        Some(source) => Ok(source),
        None => source::resolve(model, &SourceSettings::from_env()?),
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    allow_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .enable_all()
        .build()?;
    let hangups = runtime.block_on(async { Hangups::hear() });
    // A path that does not exist should be known at once, before others hear of the server.
    source::resolve_local(settings.model.as_deref())?;
    // Taken before the model is loaded, for the same reason.
    let listener = std::net::TcpListener::bind((settings.host.as_str(), settings.port))
        .with_context(|| {
            format!(
                "cannot listen on {}:{} (choose another port with --port)",
                settings.host, settings.port
            )
        })?;
    listener.set_nonblocking(true)?;
    let store = Store::open(settings.store.clone())?;
    let usage = UsageLog::open(settings.app.keys.clone(), store.clone())?;
    let files = Files::open(&store, settings.files)?;
    let stores = Stores {
        store,
        usage,
        files,
    };
    let served = runtime.block_on(serve_on(listener, settings, stores, hangups));
    // A model that is still being loaded is not waited for.
    runtime.shutdown_background();
    served
}

/// Every connection is an open file, and the usual limit of them is low. A process may raise it up
/// to its hard limit; `doctor` tells when that is too little.
#[cfg(unix)]
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(not(unix))]
fn allow_open_files() {}

/// What lies in the directory of the store. It is opened before the model is loaded: a directory
/// in use should be known at once.
struct Stores {
    store: Store,
    usage: UsageLog,
    files: Option<Files>,
}

async fn serve_on(
    listener: std::net::TcpListener,
    settings: Settings,
    stores: Stores,
    hangups: Hangups,
) -> anyhow::Result<()> {
    let Stores {
        store,
        usage,
        files,
    } = stores;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let front = Front::default();
    let listening = shutdown::listen(listener, front.router(), settings.connections.clone());
    let settings = Arc::new(settings);
    let loading = tokio::task::spawn_blocking({
        let settings = Arc::clone(&settings);
        move || load_all(&settings)
    });
    let (loaded, sources) = tokio::select! {
        loaded = loading => loaded??,
        () = shutdown::signal() => return Ok(()),
    };
    let Assembled {
        mut state,
        engine,
        mut banner,
        reloads,
        fleet,
    } = assemble(loaded, &settings, sources, (store, files), address)?;
    let fleet = match fleet {
        None => None,
        Some((builder, footprint)) => {
            let first = state.parts();
            let opening =
                tokio::task::spawn_blocking(move || Fleet::open(builder, first, footprint));
            tokio::select! {
                fleet = opening => Some(fleet??),
                () = shutdown::signal() => return Ok(()),
            }
        }
    };
    if let Some(fleet) = &fleet {
        state = state.with_fleet(fleet.clone());
        banner.others = fleet.list();
    }
    check_aliases(&state, &settings)?;
    tokio::spawn(reloads.listen(hangups));
    let (end, is_ending) = oneshot::channel::<()>();
    let usage = tokio::spawn(usage.keep(async {
        // Both an end and a lost sender are one.
        is_ending.await.ok();
    }));
    front.open(router(state, settings.app.keys.clone()));
    let mut stdout = io::stdout();
    stdout.write_all(banner.text().as_bytes())?;
    stdout.flush()?;
    let (grace, engines) = (settings.shutdown_timeout, Engines::new(engine, fleet));
    listening
        .until(engines, grace, shutdown::signal(), shutdown::signal())
        .await?;
    drop(end);
    Ok(usage.await?)
}

/// The first model, and where the others are.
fn load_all(settings: &Settings) -> anyhow::Result<(Loaded, Vec<ModelSource>)> {
    let source = find(settings.model.as_deref())?;
    // Downloaded before anything is loaded: what is missing should be known at once.
    let others = settings.fleet.models.iter();
    let others = others.map(|model| find(Some(&model.path)));
    let others = others.collect::<Result<_, _>>()?;
    let mut loaded = load(settings, &source)?;
    if let Some(encoder) = &settings.embedding_model {
        let source = find(Some(encoder))?;
        let names = vec![source.name.clone()];
        loaded.beside = Some(load_encoder(settings, &source, names)?);
    }
    Ok((loaded, others))
}

/// The first model, ready to serve.
struct Assembled {
    state: AppState,
    engine: Engine,
    banner: Banner,
    reloads: Reloads,
    /// What makes the other models, and the memory of the first.
    fleet: Option<(Builder, Footprint)>,
}

/// The running engine, the state before it, and what is said of them.
fn assemble(
    loaded: Loaded,
    settings: &Arc<Settings>,
    sources: Vec<ModelSource>,
    (store, files): (Store, Option<Files>),
    address: SocketAddr,
) -> anyhow::Result<Assembled> {
    let Loaded {
        served,
        scheduler,
        runner,
        embedding,
        beside: encoder,
        plan,
        footprint,
        shared,
        device,
        description,
    } = loaded;
    let name = served.names.first().cloned().unwrap_or_default();
    let metrics = metrics_of(&name, sources.is_empty(), &plan);
    let fleet = beside(settings, sources, device.zip(shared), &name, &metrics)?;
    let of_encoder = encoder.iter().flat_map(|beside| &beside.model.names);
    let taken = taken_names(settings, &served, of_encoder);
    let adapters = open_adapters(settings, (&served, taken), &runner, metrics.clone())?;
    let (runner, options) = (Box::new(runner), settings.engine);
    let engine = match &fleet {
        None => Engine::start(scheduler, runner, options, metrics.clone())?,
        Some(builder) => {
            let turns = Arc::clone(&builder.turns);
            Engine::start_beside(scheduler, runner, options, metrics.clone(), turns)?
        }
    };
    let embedder = embedder(&engine, embedding, encoder, settings)?;
    let banner = Banner {
        address,
        has_tls: settings.connections.tls.is_some(),
        names: served.names.clone(),
        description,
        plan,
        needs_key: settings.app.keys.are_required(),
        generates: served.generates,
        embedding_names: embedder
            .as_ref()
            .map_or_else(Vec::new, |e| e.model.names.clone()),
        can_chat: served.template.is_some(),
        others: Vec::new(),
    };
    let reloads = Reloads {
        keys: settings.app.keys.clone(),
        tls: settings.connections.tls.clone(),
        adapters: adapters.clone(),
        metrics: metrics.clone(),
    };
    let mut state = AppState::new(
        served,
        engine.handle(),
        metrics.clone(),
        store,
        &settings.app,
    )
    .with_adapters(adapters)
    .with_files(files.clone());
    if let Some(files) = files {
        tokio::spawn(files.upkeep());
    }
    if let Some(embedder) = embedder {
        state = state.with_embedder(embedder);
    }
    state = traced(state, settings, &metrics)?;
    Ok(Assembled {
        state,
        engine,
        banner,
        reloads,
        fleet: fleet.map(|builder| (builder, footprint)),
    })
}

/// Refuses aliases that cannot do what they say, and warns of those that cannot yet.
fn check_aliases(state: &AppState, settings: &Settings) -> anyhow::Result<()> {
    let adapters = &settings.adapters;
    for fault in state.alias_faults(&|name| adapters.names(name)) {
        if fault.is_final(adapters.can_grow()) {
            return Err(fault.into());
        }
        tracing::warn!("{fault}; it may come with an adapter");
    }
    Ok(())
}

/// Metrics that say what is served. One of several models has its name in its series.
fn metrics_of(name: &str, is_alone: bool, plan: &MemoryPlan) -> Arc<Metrics> {
    let metrics = if is_alone {
        Metrics::new()
    } else {
        Metrics::of_first(name)
    };
    tokio::spawn(Metrics::upkeep(Arc::downgrade(&metrics)));
    metrics.describe_served(Served {
        model: name.to_owned(),
        block_size: plan.block_size,
        n_blocks: plan.n_blocks,
    });
    metrics
}

/// What makes the other models, if there are any.
fn beside(
    settings: &Arc<Settings>,
    sources: Vec<ModelSource>,
    machine: Option<(Device, Arc<SharedWeights>)>,
    name: &str,
    metrics: &Arc<Metrics>,
) -> Result<Option<Builder>, FleetError> {
    if sources.is_empty() {
        return Ok(None);
    }
    let name = name.to_owned();
    let (device, shared) = machine.ok_or(FleetError::Encoder { name })?;
    Ok(Some(Builder {
        settings: Arc::clone(settings),
        sources,
        device,
        shared,
        turns: Arc::default(),
        metrics: Arc::clone(metrics),
    }))
}

/// What makes vectors: the model itself, an encoder beside it, or nothing.
fn embedder(
    engine: &Engine,
    own: Option<EmbeddingModel>,
    encoder: Option<LoadedEncoder>,
    settings: &Settings,
) -> anyhow::Result<Option<Embedder>> {
    Ok(match (own, encoder) {
        (Some(model), _) => Some(Embedder {
            engine: engine.handle(),
            model,
        }),
        (None, Some(encoder)) => Some(start_beside(encoder, settings)?),
        (None, None) => None,
    })
}

/// The same state, with somewhere for spans to go if the settings name it.
fn traced(state: AppState, settings: &Settings, metrics: &Metrics) -> anyhow::Result<AppState> {
    let Some(url) = &settings.traces_url else {
        return Ok(state);
    };
    let (sent, dropped) = metrics.of_traces();
    Ok(state.with_traces(Traces::start(url.clone(), sent, dropped)?))
}

/// Names that no adapter may have, and what has them.
fn taken_names<'n>(
    settings: &'n Settings,
    served: &ServedModel,
    of_encoder: impl Iterator<Item = &'n String>,
) -> Vec<(String, &'static str)> {
    let aliases = settings.app.aliases.iter().map(|alias| &alias.name);
    let others = settings.fleet.models.iter().map(|model| &model.name);
    let others = others.chain(of_encoder);
    let own = served.own_names().into_iter();
    own.chain(aliases.map(|name| (name.clone(), "an alias")))
        .chain(others.map(|name| (name.clone(), "another model")))
        .collect()
}

/// The adapters that may be served beside the model.
fn open_adapters(
    settings: &Settings,
    (served, taken): (&ServedModel, Vec<(String, &'static str)>),
    runner: &Runner,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Adapters> {
    if !settings.adapters.is_enabled() {
        return Ok(Adapters::none());
    }
    let Runner::Decoder(runner) = runner else {
        anyhow::bail!("adapters are for models that generate text, but MODEL is an encoder");
    };
    let of_model = (
        runner.model().adapter_target().clone(),
        runner.adapters().clone(),
    );
    Ok(Adapters::open(
        settings.adapters.clone(),
        of_model,
        served.kv_root,
        taken,
        metrics,
    )?)
}

/// An encoder on an engine of its own, so that its texts wait for no answers, nor answers for its
/// texts. Its scheduler's figures are not on `/metrics`, where they would mix with the model's.
fn start_beside(encoder: LoadedEncoder, settings: &Settings) -> anyhow::Result<Embedder> {
    let engine = Engine::start(
        encoder.scheduler,
        Box::new(encoder.runner),
        settings.engine,
        Metrics::new(),
    )?;
    Ok(Embedder {
        engine: engine.handle(),
        model: encoder.model,
    })
}
