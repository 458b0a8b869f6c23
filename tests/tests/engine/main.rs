//! The second stage of the simulation: the real engine loop, queue and streams, with the fake
//! executor, under paused time. A seed draws a machine, clients and everything that goes wrong.
//! `ENGINE_SEED=7` replays one seed, `ENGINE_SEEDS=5000` runs so many.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod client;
mod flaky;
mod world;

use world::World;

/// Seeds of an ordinary run.
const N_SEEDS: u64 = 400;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64) -> world::Tally {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let result = std::panic::catch_unwind(|| runtime.block_on(World::draw(seed).live()));
    match result {
        Ok(tally) => tally,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            panic!(
                "ENGINE_SEED={seed} fails: {}",
                text.unwrap_or("see the panic above")
            );
        }
    }
}

#[test]
fn engine_keeps_its_promises() {
    if let Some(seed) = setting("ENGINE_SEED") {
        run(seed);
        return;
    }
    let mut sum = world::Tally::default();
    for seed in 0..setting("ENGINE_SEEDS").unwrap_or(N_SEEDS) {
        sum.add(run(seed));
    }
    // A simulation in which something never happens proves nothing about it.
    for (what, n) in sum.counts() {
        assert!(n > 0, "no seed has seen {what}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
