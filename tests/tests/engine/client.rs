//! One client: what it asks, how it behaves, and what it holds the engine to.

use std::time::Duration;

use scheduler::{Event, FinishReason, Request};
use tests::forcing::Forcing;
use tests::oracle;
use tokio::time::{Instant, sleep};
use understudy::engine::{EngineError, EngineHandle, TokenStream};
use understudy::tenant::Tenant;

use crate::world::{N_VOCAB, Rules, Tally};

/// What a client does with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Reads to the end.
    Reads,
    /// Hangs up after so many events.
    HangsUp { after: usize },
    /// Reads nothing for a while.
    Dawdles { ms: u64 },
    /// Ends its first choice after so many events, as a stop string does.
    Stops { after: usize },
    /// Is found to be wrong after its place was taken, and never submits.
    IsWrong,
}

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) arrival_ms: u64,
    /// Between taking the place and submitting: the time to read and prepare.
    pub(crate) prepare_ms: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) takes_place_first: bool,
    pub(crate) request: Request,
    pub(crate) manner: Manner,
}

/// Tokens and end of each choice, so far.
struct Heard {
    tokens: Vec<Vec<u32>>,
    ends: Vec<Option<FinishReason>>,
    n_events: usize,
}

impl Client {
    pub(crate) async fn live(self, engine: EngineHandle, rules: Rules) -> Tally {
        sleep(Duration::from_millis(self.arrival_ms)).await;
        let mut tally = Tally::default();
        let begun = Instant::now();
        let engine = if self.takes_place_first {
            let n_tokens = self.request.prompt.len() / 2;
            match engine.for_call(Tenant::default(), self.timeout, n_tokens) {
                Ok(engine) => engine,
                Err(error) => return self.refused(&error, rules, tally),
            }
        } else {
            engine
        };
        sleep(Duration::from_millis(self.prepare_ms)).await;
        if self.manner == Manner::IsWrong {
            tally.wrong += 1;
            return tally;
        }
        let mut request = self.request.clone();
        request.id = engine.next_request_id();
        let submitted = Instant::now();
        match engine.submit(request.clone()) {
            Ok(stream) => {
                let times = Times { begun, submitted };
                self.listen(stream, &request, rules, times, tally).await
            }
            Err(error) => self.refused(&error, rules, tally),
        }
    }

    fn refused(&self, error: &EngineError, rules: Rules, mut tally: Tally) -> Tally {
        match error {
            EngineError::Overloaded { retry_after, .. } => {
                let bounds = Duration::from_secs(1)..=Duration::from_secs(120);
                assert!(bounds.contains(retry_after), "{retry_after:?}");
                tally.overloaded += 1;
            }
            EngineError::ShuttingDown => {
                assert!(rules.closes, "nobody closed it");
                tally.shut_out += 1;
            }
            EngineError::Stopped => {
                assert!(rules.crashes, "nobody stopped it");
                tally.stopped += 1;
            }
            other => panic!("refused with {other:?}"),
        }
        tally
    }

    async fn listen(
        &self,
        mut stream: TokenStream,
        request: &Request,
        rules: Rules,
        times: Times,
        mut tally: Tally,
    ) -> Tally {
        let n = request.n as usize;
        let mut heard = Heard {
            tokens: vec![Vec::new(); n],
            ends: vec![None; n],
            n_events: 0,
        };
        if let Manner::Dawdles { ms } = self.manner {
            sleep(Duration::from_millis(ms)).await;
        }
        loop {
            match self.manner {
                Manner::HangsUp { after } if heard.n_events >= after => {
                    tally.hung_up += 1;
                    break;
                }
                Manner::Stops { after } if heard.n_events == after => stream.cancel_sequence(0),
                _ => {}
            }
            match stream.next().await {
                None => {
                    assert!(
                        heard.ends.iter().all(Option::is_some),
                        "an end without ends"
                    );
                    break;
                }
                Some(Ok(event)) => heard.note(event),
                Some(Err(error)) => {
                    self.broken(&error, &heard, rules, times, &mut tally);
                    break;
                }
            }
        }
        heard.check(request, self.manner, rules, &mut tally);
        tally
    }

    /// A stream that ended in an error had to.
    fn broken(
        &self,
        error: &EngineError,
        heard: &Heard,
        rules: Rules,
        times: Times,
        tally: &mut Tally,
    ) {
        let now = Instant::now();
        match error {
            EngineError::DeadlineExceeded { timeout } => {
                assert_eq!(Some(*timeout), self.timeout);
                assert!(now.duration_since(times.begun) >= *timeout, "too early");
                tally.deadlines += 1;
            }
            EngineError::QueueTimeout { timeout, .. } => {
                assert_eq!(Some(*timeout), rules.queue_timeout);
                assert!(now.duration_since(times.submitted) >= *timeout, "too early");
                // Choices may have been ended before any of them began.
                assert!(heard.tokens.iter().all(Vec::is_empty), "it had begun");
                tally.queue_timeouts += 1;
            }
            EngineError::Refused(_) => {
                let n_prompt = self.request.prompt.len();
                assert!(n_prompt >= rules.max_model_len, "it fits");
                tally.never_fit += 1;
            }
            EngineError::Stopped => {
                assert!(rules.crashes, "nobody stopped it");
                tally.stopped += 1;
            }
            other => panic!("broken by {other:?}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Times {
    begun: Instant,
    submitted: Instant,
}

impl Heard {
    fn note(&mut self, event: Event) {
        self.n_events += 1;
        match event {
            Event::PromptScored { .. } | Event::Pooled { .. } => {
                panic!("nobody asked for scores or vectors")
            }
            Event::Token { sequence, token } => {
                let index = sequence.index as usize;
                assert_eq!(self.ends[index], None, "a token after the end");
                self.tokens[index].push(token.token);
            }
            Event::Finished {
                sequence, reason, ..
            } => {
                let end = self.ends[sequence.index as usize].replace(reason);
                assert_eq!(end, None, "two ends");
            }
        }
    }

    /// Every choice says what it says alone, or the beginning of it.
    fn check(&self, request: &Request, manner: Manner, rules: Rules, tally: &mut Tally) {
        if self.n_events == 0 {
            return; // It may have been one that nobody could serve.
        }
        for (index, (tokens, end)) in (0_u32..).zip(self.tokens.iter().zip(&self.ends)) {
            let machine = oracle::Machine {
                n_vocab: N_VOCAB,
                max_model_len: rules.max_model_len,
                window: None,
                forcing: Forcing::NONE,
            };
            let expected = oracle::alone(request, index, machine);
            let all: Vec<u32> = expected.tokens.iter().map(|token| token.token).collect();
            assert!(all.starts_with(tokens), "{tokens:?} is not {all:?}");
            match end {
                None => {}
                Some(FinishReason::Cancelled) => {
                    let is_own = matches!(manner, Manner::Stops { .. }) && index == 0;
                    assert!(is_own || rules.closes, "nobody cancelled it");
                    tally.cancelled += 1;
                }
                Some(FinishReason::Failed) => {
                    assert!(rules.has_faults, "nothing went wrong");
                    tally.failed += 1;
                }
                Some(reason) => {
                    assert_eq!((tokens, *reason), (&all, expected.reason));
                    tally.finished += 1;
                }
            }
        }
    }
}
