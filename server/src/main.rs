//! The `understudy` command.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use understudy::app::{AppState, router};
use understudy::args::{Args, Command, LogFormat};
use understudy::banner::Banner;
use understudy::engine::Engine;
use understudy::load::{Loaded, load};
use understudy::metrics::Metrics;
use understudy::settings::Settings;
use understudy::{shutdown, source};

/// Threads for HTTP; the model has its own.
const HTTP_THREADS: usize = 2;

fn main() -> ExitCode {
    match run(Args::parse().into_command()) {
        Ok(()) => ExitCode::SUCCESS,
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
            let source = source::resolve(args.model.as_deref())?;
            writeln!(io::stdout(), "{}", source.path.display())?;
            Ok(())
        }
        Command::Serve(args) => {
            init_log(args.log_format);
            serve(Settings::resolve(*args)?)
        }
    }
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

fn serve(settings: Settings) -> anyhow::Result<()> {
    // Taken before the model is loaded: a port in use should be known at once.
    let listener = std::net::TcpListener::bind((settings.host.as_str(), settings.port))
        .with_context(|| format!("cannot listen on {}:{}", settings.host, settings.port))?;
    listener.set_nonblocking(true)?;
    let source = source::resolve(settings.model.as_deref())?;
    let loaded = load(&settings, &source)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(serve_loaded(listener, &settings, loaded))
}

async fn serve_loaded(
    listener: std::net::TcpListener,
    settings: &Settings,
    loaded: Loaded,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let metrics = Metrics::new();
    tokio::spawn(Metrics::upkeep(std::sync::Arc::downgrade(&metrics)));
    let Loaded {
        served,
        scheduler,
        runner,
        plan,
        description,
    } = loaded;
    let engine = Engine::start(
        scheduler,
        Box::new(runner),
        settings.max_queued,
        metrics.clone(),
    )?;
    let banner = Banner {
        address: listener.local_addr()?,
        names: &served.names,
        description: &description,
        plan: &plan,
        needs_key: settings.app.keys.are_required(),
        can_chat: served.template.is_some(),
    }
    .text();
    let state = AppState::new(served, engine.handle(), metrics, &settings.app);
    let app = router(state, settings.app.keys.clone());
    let mut stdout = io::stdout();
    stdout.write_all(banner.as_bytes())?;
    stdout.flush()?;
    shutdown::serve(
        listener,
        app,
        engine,
        settings.shutdown_timeout,
        shutdown::signal(),
        shutdown::signal(),
    )
    .await?;
    Ok(())
}
