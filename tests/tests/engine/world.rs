//! What a seed draws, and how it goes: an engine, its clients, and its end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use scheduler::{Priority, Request, RequestId, SamplingParams, Scheduler, SchedulerConfig};
use tests::fake::FakeConfig;
use tests::rng::Rng;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use understudy::engine::{Engine, EngineHandle, EngineOptions, QueueLimits, StepLoop};
use understudy::metrics::Metrics;

use crate::client::{Client, Manner};
use crate::flaky::{Faults, Flaky};

pub(crate) const N_VOCAB: u32 = 40;
/// Virtual time in which everything must have ended.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What a client may be told, in this world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) max_model_len: usize,
    pub(crate) queue_timeout: Option<Duration>,
    pub(crate) has_faults: bool,
    pub(crate) closes: bool,
    pub(crate) crashes: bool,
}

/// How the engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// When all clients are gone.
    Idle,
    /// It takes nothing more, and cancels what is left after a while.
    Drains { at_ms: u64, grace_ms: u64 },
    /// The loop is gone from one moment to the next.
    Crashes { at_ms: u64 },
}

/// Everything that a seed draws.
#[derive(Debug)]
pub(crate) struct World {
    config: SchedulerConfig,
    options: EngineOptions,
    faults: Faults,
    clients: Vec<Client>,
    end: End,
    rng: Rng,
}

macro_rules! tally {
    ($($name:ident),*) => {
        /// How often what happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Tally {
            $(pub(crate) $name: u64,)*
        }

        impl Tally {
            pub(crate) fn add(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }

            pub(crate) fn counts(self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

tally!(
    finished,
    cancelled,
    failed,
    hung_up,
    wrong,
    overloaded,
    shut_out,
    stopped,
    deadlines,
    queue_timeouts,
    never_fit
);

impl World {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x00e0_61e5);
        let block_size = rng.range(1, 8);
        let n_blocks = rng.range(6, 40);
        let config = SchedulerConfig {
            block_size,
            n_blocks,
            max_batched_tokens: rng.range(1, 40),
            max_sequences: rng.range(1, 8),
            max_model_len: rng.range(4, (block_size * n_blocks).min(80)),
            window: None,
            prefix_cache: rng.chance(700),
            fairness: rng.chance(500),
            head_start: rng.range(0, 100),
            age_bound_steps: rng.range(1, 200),
        };
        let limits = QueueLimits {
            max_requests: rng.range(1, 20),
            max_tokens: rng.range(20, 400),
            timeout: rng.chance(500).then(|| ms(&mut rng, 10, 2_000)),
        };
        let faults = if rng.chance(400) {
            Faults {
                errors: rng.range(0, 60),
                panics: rng.range(0, 60),
                rows: rng.range(0, 60),
                postponed: rng.range(0, 100),
                lies: rng.range(0, 30),
            }
        } else {
            Faults::default()
        };
        let end = match rng.range(0, 9) {
            0..=5 => End::Idle,
            6..=8 => End::Drains {
                at_ms: rng.range(0, 500) as u64,
                grace_ms: rng.range(0, 300) as u64,
            },
            _ => End::Crashes {
                at_ms: rng.range(0, 500) as u64,
            },
        };
        let n_clients = rng.range(1, 25);
        let clients = (0..n_clients).map(|_| client(&mut rng, &config)).collect();
        Self {
            config,
            options: EngineOptions {
                queue: limits,
                stretch: rng.chance(300).then_some(2.5),
                forces_tokens: true,
                overlaps_steps: rng.chance(800),
            },
            faults,
            clients,
            end,
            rng,
        }
    }

    pub(crate) async fn live(mut self) -> Tally {
        let rules = Rules {
            max_model_len: self.config.max_model_len,
            queue_timeout: self.options.queue.timeout,
            has_faults: !self.faults.are_none(),
            closes: matches!(self.end, End::Drains { .. }),
            crashes: matches!(self.end, End::Crashes { .. }),
        };
        let fake = FakeConfig {
            block_size: self.config.block_size,
            n_blocks: self.config.n_blocks,
            n_vocab: N_VOCAB,
            window: None,
        };
        let executor = Flaky::new(fake, self.faults, Rng::new(self.rng.draw()));
        let metrics = Metrics::new();
        let scheduler = Scheduler::new(self.config).unwrap();
        let (engine, step_loop) =
            Engine::parts(scheduler, Box::new(executor), self.options, metrics.clone());
        let are_gone = Rc::new(Cell::new(false));
        let local = LocalSet::new();
        let crash = match self.end {
            End::Crashes { at_ms } => Some(Duration::from_millis(at_ms)),
            _ => None,
        };
        let steps = Rng::new(self.rng.draw());
        let driver = local.spawn_local(drive(step_loop, steps, Rc::clone(&are_gone), crash));
        if let End::Drains { at_ms, grace_ms } = self.end {
            local.spawn_local(drain(engine.clone(), at_ms, grace_ms));
        }
        let clients = self.clients.into_iter();
        let clients: Vec<_> = clients
            .map(|client| local.spawn_local(client.live(engine.clone(), rules)))
            .collect();
        let everything = local.run_until(async {
            let mut tally = Tally::default();
            for client in clients {
                tally.add(client.await.unwrap());
            }
            are_gone.set(true);
            driver.await.unwrap();
            tally
        });
        let tally = timeout(PATIENCE, everything).await;
        let tally = tally.expect("somebody waits for ever");
        assert_quiet(&metrics.render(), rules.crashes);
        tally
    }
}

/// Turns the loop until all clients are gone and nothing is left, or until it crashes. Steps
/// take their time, some of them long.
async fn drive(
    mut step_loop: StepLoop,
    mut rng: Rng,
    are_gone: Rc<Cell<bool>>,
    crash: Option<Duration>,
) {
    let begun = tokio::time::Instant::now();
    loop {
        if crash.is_some_and(|at| begun.elapsed() >= at) {
            return;
        }
        let is_over = are_gone.get();
        assert!(step_loop.turn(), "nobody told it to stop");
        if step_loop.has_work() {
            let ms = if rng.chance(20) {
                400
            } else {
                rng.range(0, 12)
            };
            sleep(Duration::from_millis(ms as u64)).await;
            continue;
        }
        step_loop.check_idle().unwrap();
        if is_over {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn drain(engine: EngineHandle, at_ms: u64, grace_ms: u64) {
    sleep(Duration::from_millis(at_ms)).await;
    engine.close();
    sleep(Duration::from_millis(grace_ms)).await;
    engine.cancel_all();
}

/// All gauges are back at zero. After a crash those of the loop are as it left them.
fn assert_quiet(text: &str, has_crashed: bool) {
    let mut names = vec!["understudy_requests_queued", "understudy_tokens_queued"];
    if !has_crashed {
        names.extend([
            "understudy_sequences_running",
            "understudy_sequences_waiting",
            "understudy_tokens_running",
            "understudy_kv_blocks_in_use",
            "understudy_kv_usage_ratio",
        ]);
    }
    for name in names {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        assert_eq!(line, Some(format!("{name} 0").as_str()));
    }
}

fn ms(rng: &mut Rng, low: usize, high: usize) -> Duration {
    Duration::from_millis(rng.range(low, high) as u64)
}

fn client(rng: &mut Rng, config: &SchedulerConfig) -> Client {
    let longest = config.max_model_len;
    let n_prompt = if rng.chance(50) {
        longest + rng.range(0, 5)
    } else {
        rng.range(1, (longest - 1).min(50))
    };
    let stem = rng.range(0, 2) as u32;
    let prompt: Vec<u32> = (0..n_prompt as u32)
        .map(|i| {
            if i < 12 {
                stem + i
            } else {
                rng.range(0, 39) as u32
            }
        })
        .collect();
    let params = SamplingParams {
        temperature: if rng.chance(500) { 1.0 } else { 0.0 },
        seed: rng.draw(),
        ..SamplingParams::default()
    };
    let request = Request {
        n: rng.range(1, 3) as u32,
        max_new_tokens: rng.range(1, 30) as u32,
        stop_tokens: if rng.chance(500) {
            [3, 5].into()
        } else {
            [].into()
        },
        kv_root: 1,
        sampling: params.into(),
        priority: *rng.pick(&Priority::ALL),
        ..Request::new(RequestId(0), prompt.into(), 0)
    };
    let manner = match rng.range(0, 9) {
        0..=3 => Manner::Reads,
        4 | 5 => Manner::HangsUp {
            after: rng.range(0, 20),
        },
        6 => Manner::Dawdles {
            ms: rng.range(0, 2_000) as u64,
        },
        7 | 8 => Manner::Stops {
            after: rng.range(0, 10),
        },
        _ => Manner::IsWrong,
    };
    let takes_place_first = rng.chance(800);
    Client {
        arrival_ms: rng.range(0, 400) as u64,
        prepare_ms: rng.range(0, 30) as u64,
        timeout: (takes_place_first && rng.chance(300)).then(|| ms(rng, 1, 1_000)),
        takes_place_first,
        request,
        manner,
    }
}
