//! The work: who asks what, and when. Everything is drawn before anything is sent, from one
//! seed, so that the same seed is the same work whatever the server does.

use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::length::Length;
use crate::prompt::Piece;
use crate::rng::Rng;
use crate::trace::{Recorded, TOKENS_OF_HASH};
use crate::zipf::Zipf;

/// What kinds of requests there are, and how many of each.
#[derive(Clone, Debug)]
pub struct Mix {
    pub prompt: Length,
    pub output: Length,
    /// Tokens that prompts of a group begin with alike; 0: they share nothing.
    pub n_shared: usize,
    /// Groups, drawn alike often.
    pub n_groups: usize,
    /// Turns of a conversation; each sends all before it again.
    pub turns: Length,
    /// Between an answer and the next turn.
    pub think_time: Duration,
    /// Models or adapters, and how unevenly they are asked for (Zipf's exponent).
    pub models: Vec<String>,
    pub zipf: f64,
    /// Share of requests whose answer must match a schema.
    pub structured: f64,
}

/// One request to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What this turn adds to the prompt.
    pub pieces: Vec<Piece>,
    pub n_output: usize,
    pub is_structured: bool,
}

/// A conversation, mostly of one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// When its first turn arrives; `None` in a closed loop.
    pub at: Option<Duration>,
    pub model: String,
    pub turns: Vec<Turn>,
    pub think_time: Duration,
}

impl Session {
    /// Tokens of all its prompts and answers together, at the end of its last turn.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        let turn = |turn: &Turn| {
            let prompt: usize = turn.pieces.iter().map(|piece| piece.n_tokens).sum();
            prompt + turn.n_output
        };
        self.turns.iter().map(turn).sum()
    }
}

impl Mix {
    /// The first `n` sessions.
    #[must_use]
    pub fn sessions(&self, arrivals: &Arrivals, n: usize, seed: u64) -> Vec<Session> {
        let times = arrivals.times(n, seed);
        let n = times.as_ref().map_or(n, Vec::len);
        let zipf = Zipf::new(self.models.len(), self.zipf);
        let session = |i: usize| {
            let mut rng = Rng::fork(seed, 1 + i as u64);
            let model = self.models[zipf.draw(&mut rng)].clone();
            let group = rng.below(self.n_groups.max(1) as u64);
            let n_turns = self.turns.draw(&mut rng);
            let turns = (0..n_turns).map(|turn| {
                let mut pieces = Vec::new();
                if turn == 0 && self.n_shared > 0 {
                    pieces.push(Piece {
                        seed: Rng::fork(seed, u64::MAX - group).bits(),
                        n_tokens: self.n_shared,
                    });
                }
                pieces.push(Piece {
                    seed: rng.bits(),
                    n_tokens: self.prompt.draw(&mut rng),
                });
                Turn {
                    pieces,
                    n_output: self.output.draw(&mut rng),
                    is_structured: rng.unit() < self.structured,
                }
            });
            Session {
                at: times.as_ref().map(|times| times[i]),
                model,
                turns: turns.collect(),
                think_time: self.think_time,
            }
        };
        (0..n).map(session).collect()
    }

    /// The first `n` sessions of a trace: its lengths and, where it knows them, its shared
    /// beginnings. Models and schemas are drawn as otherwise.
    #[must_use]
    pub fn replay(&self, trace: &[Recorded], n: usize, seed: u64) -> Vec<Session> {
        let zipf = Zipf::new(self.models.len(), self.zipf);
        let session = |(i, recorded): (usize, &Recorded)| {
            let mut rng = Rng::fork(seed, 1 + i as u64);
            Session {
                at: Some(recorded.at),
                model: self.models[zipf.draw(&mut rng)].clone(),
                think_time: Duration::ZERO,
                turns: vec![Turn {
                    pieces: pieces(recorded, seed, &mut rng),
                    n_output: recorded.n_output,
                    is_structured: rng.unit() < self.structured,
                }],
            }
        };
        trace.iter().take(n).enumerate().map(session).collect()
    }
}

/// The prompt of a recorded request: pieces by its ids, the last as long as the rest; without ids
/// one piece of its own.
fn pieces(recorded: &Recorded, seed: u64, rng: &mut Rng) -> Vec<Piece> {
    let mut left = recorded.n_prompt;
    let mut pieces = Vec::new();
    for id in &recorded.hash_ids {
        let n_tokens = left.min(TOKENS_OF_HASH);
        left -= n_tokens;
        if n_tokens > 0 {
            let seed = Rng::fork(seed, !id).bits();
            pieces.push(Piece { seed, n_tokens });
        }
    }
    if left > 0 {
        let seed = rng.bits();
        pieces.push(Piece {
            seed,
            n_tokens: left,
        });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix() -> Mix {
        Mix {
            prompt: Length::Uniform(10, 20),
            output: Length::Fixed(5),
            n_shared: 100,
            n_groups: 3,
            turns: Length::Uniform(1, 3),
            think_time: Duration::from_secs(1),
            models: vec!["a".to_owned(), "b".to_owned()],
            zipf: 1.0,
            structured: 0.25,
        }
    }

    #[test]
    fn the_same_seed_is_the_same_work_however_much_of_it() {
        let arrivals = Arrivals::Gamma {
            rate: 3.0,
            shape: 1.0,
        };
        let few = mix().sessions(&arrivals, 50, 7);
        let many = mix().sessions(&arrivals, 100, 7);
        assert_eq!(few[..], many[..50]);
        assert_ne!(few, mix().sessions(&arrivals, 50, 8));
        // Another rate moves the arrivals and nothing else.
        let slow = mix().sessions(
            &Arrivals::Gamma {
                rate: 1.0,
                shape: 1.0,
            },
            50,
            7,
        );
        assert!(
            few.iter()
                .zip(&slow)
                .all(|(a, b)| a.turns == b.turns && a.model == b.model)
        );
    }

    #[test]
    fn shares_are_kept() {
        let sessions = mix().sessions(&Arrivals::Closed { n_clients: 1 }, 6_000, 1);
        let groups: std::collections::BTreeSet<u64> = sessions
            .iter()
            .map(|session| session.turns[0].pieces[0].seed)
            .collect();
        assert_eq!(groups.len(), 3);
        let later = sessions.iter().flat_map(|session| &session.turns[1..]);
        assert!(later.clone().count() > 3_000 && later.clone().all(|turn| turn.pieces.len() == 1));
        let turns: Vec<&Turn> = sessions.iter().flat_map(|session| &session.turns).collect();
        let n_structured = turns.iter().filter(|turn| turn.is_structured).count();
        let share = n_structured as f64 / turns.len() as f64;
        assert!((share - 0.25).abs() < 0.02, "{share}");
        let n_first = sessions
            .iter()
            .filter(|session| session.model == "a")
            .count();
        assert!(
            (n_first as f64 / 6_000.0 - 2.0 / 3.0).abs() < 0.02,
            "{n_first}"
        );
    }

    #[test]
    fn a_trace_keeps_its_lengths_and_its_shared_beginnings() {
        let recorded = |n_prompt, hash_ids: &[u64]| Recorded {
            at: Duration::from_secs(1),
            n_prompt,
            n_output: 9,
            hash_ids: hash_ids.to_vec(),
        };
        let trace = [
            recorded(1100, &[1, 2, 3]),
            recorded(600, &[1, 5]),
            recorded(70, &[]),
        ];
        let sessions = mix().replay(&trace, 10, 3);
        let pieces: Vec<&[Piece]> = sessions.iter().map(|s| &s.turns[0].pieces[..]).collect();
        let n_tokens = |pieces: &[Piece]| pieces.iter().map(|p| p.n_tokens).collect::<Vec<_>>();
        assert_eq!(n_tokens(pieces[0]), [512, 512, 76]);
        assert_eq!(
            (pieces[1][0], n_tokens(pieces[1])),
            (pieces[0][0], vec![512, 88])
        );
        assert_ne!(pieces[1][1].seed, pieces[0][1].seed);
        assert_eq!(n_tokens(pieces[2]), [70]);
    }
}
