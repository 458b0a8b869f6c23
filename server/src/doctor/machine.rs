//! Processor, memory, limits of the process, and the address.

use std::net::{TcpListener, ToSocketAddrs};
use std::num::NonZero;

use kernels::Isa;

use super::Finding;
use crate::plan::{available_bytes, human_bytes};
use crate::settings::Settings;

/// Open files beside connections: weights, store, watches.
const OTHER_FILES: u64 = 256;

/// What does not depend on the settings as a whole.
pub(super) fn examine(n_threads: Option<usize>) -> Vec<Finding> {
    vec![cpu(n_threads), memory()]
}

fn cpu(n_threads: Option<usize>) -> Finding {
    let n_cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let n_threads = n_threads.unwrap_or(n_cores);
    let isa = Isa::best();
    let text = format!("{isa}, {n_threads} threads on {n_cores} cores");
    if n_threads > n_cores {
        let text = format!(
            "{text}: threads that wait for a core hold up the others; lower --threads to {n_cores}"
        );
        return Finding::doubtful("cpu", text);
    }
    if isa == Isa::Scalar && cfg!(target_arch = "x86_64") {
        let text =
            format!("{text}: without AVX2 it is several times slower; use a newer processor");
        return Finding::doubtful("cpu", text);
    }
    Finding::good("cpu", text)
}

fn memory() -> Finding {
    match available_bytes() {
        u64::MAX => Finding::doubtful("memory", "how much is free cannot be told here"),
        free => Finding::good("memory", format!("{} free", human_bytes(free))),
    }
}

/// The address, and what it asks of the process.
pub(super) fn examine_network(settings: &Settings) -> Vec<Finding> {
    vec![port(settings), keys(settings), open_files(settings)]
}

fn port(settings: &Settings) -> Finding {
    let (host, port) = (settings.host.as_str(), settings.port);
    match TcpListener::bind((host, port)) {
        Ok(_) => Finding::good("port", format!("{host}:{port} is free")),
        Err(error) => Finding::bad(
            "port",
            format!("{host}:{port}: {error}; choose another with --port or --host"),
        ),
    }
}

/// Whether the address can be reached from elsewhere.
fn is_public(settings: &Settings) -> bool {
    let addresses = (settings.host.as_str(), settings.port).to_socket_addrs();
    addresses.is_ok_and(|mut addresses| addresses.any(|address| !address.ip().is_loopback()))
}

fn keys(settings: &Settings) -> Finding {
    let keys = &settings.app.keys;
    if !keys.are_required() {
        return if is_public(settings) {
            let text = "everybody who reaches this address may use the server; give it --api-keys \
                        or --api-key";
            Finding::doubtful("keys", text)
        } else {
            Finding::good("keys", "none; only this machine reaches the server")
        };
    }
    if is_public(settings) && settings.connections.tls.is_none() {
        let text = "they travel in clear; give the server --tls-cert and --tls-key, or put a proxy \
                    with TLS before it";
        return Finding::doubtful("keys", text);
    }
    if settings.adapters.root.is_some() && !keys.has_admin() {
        let text = "--adapter-root lets admins load adapters, but no key has the scope `admin`";
        return Finding::doubtful("keys", text);
    }
    Finding::good("keys", "needed on every route but the probes")
}

#[cfg(unix)]
fn open_files(settings: &Settings) -> Finding {
    use rustix::process::{Resource, getrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let needed = settings.connections.max_connections as u64 + OTHER_FILES;
    match most {
        Some(most) if most < needed => Finding::doubtful(
            "open files",
            format!(
                "at most {most}, but --max-connections {} may need {needed}; raise the hard limit \
                 (ulimit -Hn, LimitNOFILE=) or lower the flag",
                settings.connections.max_connections
            ),
        ),
        _ => Finding::good("open files", format!("the limit allows {needed}")),
    }
}

#[cfg(not(unix))]
fn open_files(_settings: &Settings) -> Finding {
    Finding::good("open files", "no limit is known")
}
