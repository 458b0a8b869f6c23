//! A load in simulated time, against one server or several.

use anyhow::Result;
use load::{Outcome, Session};

use super::replica::Replica;
use super::router::Router;

/// Sessions that arrive at their times, each sent where the router says.
pub(crate) fn open(
    sessions: &[Session],
    replicas: &mut [Replica],
    router: &mut Router,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (i, session) in sessions.iter().enumerate() {
        let at = session.at.unwrap_or_default().as_secs_f64();
        for replica in &mut *replicas {
            outcomes.extend(replica.advance(at)?);
        }
        let chosen = router.choose(session, replicas);
        replicas[chosen].submit(i, session, at);
    }
    for replica in replicas {
        while replica.n_requests() > 0 {
            outcomes.extend(replica.advance(f64::INFINITY)?);
        }
    }
    outcomes.sort_by_key(|outcome| outcome.session);
    Ok(outcomes)
}

/// Clients that ask again when they have their answer.
pub(crate) fn closed(
    sessions: &[Session],
    n_clients: usize,
    replica: &mut Replica,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut left = sessions.iter().enumerate();
    for (i, session) in left.by_ref().take(n_clients) {
        replica.submit(i, session, 0.0);
    }
    while replica.n_requests() > 0 {
        let ended = replica.advance(f64::INFINITY)?;
        for outcome in ended {
            if let Some((i, session)) = left.next() {
                replica.submit(i, session, outcome.ended);
            }
            outcomes.push(outcome);
        }
    }
    outcomes.sort_by_key(|outcome| outcome.session);
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use load::{Arrivals, Length, Mix, Summary};

    use super::*;
    use crate::simulate::config;
    use crate::simulate::cost::{Cost, Curves};
    use crate::simulate::router::Policy;

    /// A step takes a millisecond, and one more for each token.
    fn replica() -> Replica {
        let cost = Cost::Measured(Curves {
            linear: vec![(1.0, 1e-3), (2.0, 2e-3)],
            slowdown: 1.0,
            between: 1e-3,
            ..Curves::default()
        });
        Replica::new(config(1_000, 8), Some(2.0), cost).unwrap()
    }

    fn mix(n_shared: usize) -> Mix {
        Mix {
            prompt: Length::Fixed(64),
            output: Length::Fixed(10),
            n_shared,
            n_groups: 4,
            turns: Length::Fixed(1),
            think_time: Duration::ZERO,
            models: vec!["m".to_owned()],
            zipf: 0.0,
            structured: 0.0,
        }
    }

    #[test]
    fn one_request_takes_what_its_steps_take() {
        let sessions = mix(0).sessions(&Arrivals::Closed { n_clients: 1 }, 3, 1);
        let outcomes = closed(&sessions, 1, &mut replica()).unwrap();
        for outcome in &outcomes {
            // A step of 64 tokens, then nine of one.
            assert!((outcome.ttft().unwrap() - 65e-3).abs() < 1e-9);
            assert!((outcome.tpot().unwrap() - 2e-3).abs() < 1e-9);
        }
        assert!(
            (outcomes[2].intended - 2.0 * 83e-3).abs() < 1e-9,
            "one after the other"
        );
    }

    #[test]
    fn all_work_is_done_and_counted() {
        let arrivals = Arrivals::Gamma {
            rate: 5.0,
            shape: 1.0,
        };
        let sessions = mix(0).sessions(&arrivals, 200, 1);
        let mut replicas = [replica(), replica()];
        let mut router = Router::new(Policy::RoundRobin, 2);
        let outcomes = open(&sessions, &mut replicas, &mut router).unwrap();
        let summary = Summary::of(&outcomes, None);
        assert_eq!((summary.n_requests, summary.n_output_tokens), (200, 2_000));
        let pairs = outcomes.iter().zip(&sessions);
        for (outcome, session) in pairs {
            assert!((outcome.intended - session.at.unwrap().as_secs_f64()).abs() < 1e-9);
            assert!(
                outcome.ttft().unwrap() >= 65e-3 - 1e-9,
                "never faster than alone"
            );
        }
    }

    #[test]
    fn a_router_that_knows_prefixes_computes_less() {
        let arrivals = Arrivals::Gamma {
            rate: 8.0,
            shape: 1.0,
        };
        let sessions = mix(160).sessions(&arrivals, 200, 1);
        let cached = |policy| {
            let mut replicas = [replica(), replica(), replica()];
            let mut router = Router::new(policy, 3);
            let outcomes = open(&sessions, &mut replicas, &mut router).unwrap();
            Summary::of(&outcomes, None).n_cached_tokens
        };
        let (blind, aware) = (cached(Policy::RoundRobin), cached(Policy::Prefix));
        // Twelve first visits against four, of 160 tokens each.
        assert!(aware > blind, "{aware} {blind}");
        assert!(aware <= 196 * 160);
    }
}
