//! Which of several servers a request goes to.

use std::collections::HashMap;

use load::Session;

use super::replica::Replica;

/// How requests are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// One after the other.
    RoundRobin,
    /// To whoever has the fewest requests.
    LeastLoaded,
    /// To whoever has seen the longest beginning of the prompt, unless it has many more requests
    /// than the least loaded: the scheme of the inference extension of Kubernetes' gateway.
    Prefix,
}

/// More requests than the least loaded has, beyond which a cached prefix does not draw.
const SLACK: usize = 8;

/// What the router remembers.
#[derive(Debug)]
pub(crate) struct Router {
    policy: Policy,
    next: usize,
    /// Which servers were sent a prompt that begins with these pieces.
    seen: HashMap<Vec<u64>, Vec<bool>>,
    n: usize,
}

impl Router {
    pub(crate) fn new(policy: Policy, n: usize) -> Self {
        Self {
            policy,
            next: 0,
            seen: HashMap::new(),
            n,
        }
    }

    /// The number of the server that gets a session.
    pub(crate) fn choose(&mut self, session: &Session, replicas: &[Replica]) -> usize {
        let loads: Vec<usize> = replicas.iter().map(Replica::n_requests).collect();
        self.choose_by(session, &loads)
    }

    fn choose_by(&mut self, session: &Session, loads: &[usize]) -> usize {
        // Of equals, the next in turn.
        let turn = self.next;
        self.next = (self.next + 1) % self.n;
        let distance = |i: usize| (i + self.n - turn) % self.n;
        let least = (0..self.n)
            .min_by_key(|&i| (loads[i], distance(i)))
            .unwrap_or(turn);
        let chosen = match self.policy {
            Policy::RoundRobin => turn,
            Policy::LeastLoaded => least,
            Policy::Prefix => {
                let known = self.known(session);
                let with = (0..self.n).filter(|&i| known[i] > 0);
                let fits = with.filter(|&i| loads[i] <= loads[least] + SLACK);
                let best = fits.max_by_key(|&i| (known[i], self.n - distance(i)));
                best.unwrap_or(least)
            }
        };
        self.note(session, chosen);
        chosen
    }

    /// Tokens of the beginning of a prompt that each server has seen.
    fn known(&self, session: &Session) -> Vec<usize> {
        let mut known = vec![0; self.n];
        let (mut key, mut n_tokens) = (Vec::new(), 0);
        for piece in &session.turns[0].pieces {
            key.push(piece.seed);
            n_tokens += piece.n_tokens;
            let Some(seen) = self.seen.get(&key) else {
                break;
            };
            for i in (0..self.n).filter(|&i| seen[i]) {
                known[i] = n_tokens;
            }
        }
        known
    }

    fn note(&mut self, session: &Session, chosen: usize) {
        let mut key = Vec::new();
        for piece in &session.turns[0].pieces {
            key.push(piece.seed);
            let seen = self.seen.entry(key.clone());
            seen.or_insert_with(|| vec![false; self.n])[chosen] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use load::{Piece, Turn};

    use super::*;

    fn session(seeds: &[u64]) -> Session {
        let piece = |&seed: &u64| Piece {
            seed,
            n_tokens: 100,
        };
        Session {
            at: None,
            model: "m".to_owned(),
            turns: vec![Turn {
                pieces: seeds.iter().map(piece).collect(),
                n_output: 1,
                is_structured: false,
            }],
            think_time: Duration::ZERO,
        }
    }

    #[test]
    fn prefixes_draw_until_there_are_too_many() {
        let mut router = Router::new(Policy::Prefix, 3);
        let first = router.choose_by(&session(&[1, 10]), &[0, 0, 0]);
        let other = router.choose_by(&session(&[2, 11]), &[1, 1, 1]);
        assert_ne!(first, other, "of equals, the next in turn");
        let mut loads = [0; 3];
        loads[first] = SLACK;
        assert_eq!(router.choose_by(&session(&[1, 12]), &loads), first);
        loads[first] += 1;
        let moved = router.choose_by(&session(&[1, 13]), &loads);
        assert_ne!(moved, first);
        // Now two know the beginning; the longer one wins.
        assert_eq!(router.choose_by(&session(&[1, 10, 14]), &[0, 0, 0]), first);
    }

    #[test]
    fn turns_are_taken() {
        let mut router = Router::new(Policy::RoundRobin, 3);
        let turns: Vec<usize> = (0..4)
            .map(|_| router.choose_by(&session(&[1]), &[9, 0, 0]))
            .collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        let mut router = Router::new(Policy::LeastLoaded, 3);
        assert_eq!(router.choose_by(&session(&[1]), &[9, 3, 4]), 1);
    }
}
