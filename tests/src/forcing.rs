//! Tokens that follow without a draw, as a grammar would say: a function of the tokens so far.

use std::collections::BTreeMap;

use scheduler::{Event, Request, Scheduler, SequenceId, TokenId};

use crate::rng::mix;

/// How often tokens are forced, and how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forcing {
    /// Of 1000 contexts, after how many something is forced.
    pub chance: u64,
    pub n_most: usize,
    pub n_vocab: u32,
}

impl Forcing {
    pub const NONE: Self = Self {
        chance: 0,
        n_most: 0,
        n_vocab: 1,
    };

    /// What follows `tokens`, prompt and output.
    pub fn after(self, tokens: &[TokenId]) -> Vec<TokenId> {
        let fold = |state: u64, &token: &TokenId| mix(state ^ u64::from(token));
        let context = tokens.iter().fold(tokens.len() as u64, fold);
        if context % 1_000 >= self.chance {
            return Vec::new();
        }
        let n = 1 + mix(context) % self.n_most as u64;
        let token = |i: u64| (mix(context ^ (i + 1)) % u64::from(self.n_vocab)) as TokenId;
        (0..n).map(token).collect()
    }
}

/// Follows sequences by their events, and forces what their tokens ask for.
#[derive(Debug)]
pub(crate) struct Follower {
    forcing: Forcing,
    /// Of sequences that are steered.
    tokens: BTreeMap<SequenceId, Vec<TokenId>>,
}

impl Follower {
    pub(crate) fn new(forcing: Forcing) -> Self {
        Self {
            forcing,
            tokens: BTreeMap::new(),
        }
    }

    pub(crate) fn open(&mut self, request: &Request) {
        if !request.is_steered {
            return;
        }
        for index in 0..request.n {
            let id = SequenceId {
                request: request.id,
                index,
            };
            self.tokens.insert(id, request.prompt.to_vec());
        }
    }

    /// What came of a step, and of the tokens that it makes follow.
    pub(crate) fn force(&mut self, events: Vec<Event>, scheduler: &mut Scheduler) -> Vec<Event> {
        let mut all = Vec::new();
        for event in events {
            let Event::Token { sequence, token } = &event else {
                all.push(event);
                continue;
            };
            let (id, token) = (*sequence, token.token);
            all.push(event);
            let Some(tokens) = self.tokens.get_mut(&id) else {
                continue;
            };
            tokens.push(token);
            let forced = scheduler.force(id, &self.forcing.after(tokens));
            tokens.extend(forced.iter().filter_map(|event| match event {
                Event::Token { token, .. } => Some(token.token),
                _ => None,
            }));
            all.extend(forced);
        }
        all
    }
}
