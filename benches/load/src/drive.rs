//! Sending the work, in an open or a closed loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::body::Form;
use crate::call::{Call, Clock};
use crate::connection::Connections;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::workload::Session;

/// What all tasks of a run share.
struct Run {
    connections: Arc<Connections>,
    form: Form,
    sessions: Vec<Session>,
    clock: Clock,
    progress: Progress,
    /// No session begins after this.
    stop: Option<Duration>,
    /// The next session of a closed loop.
    next: AtomicUsize,
}

/// Runs sessions that have times at these (open loop), others one after the other by each of
/// `n_clients` (closed loop). Returns when all have ended; outcomes come by session and turn.
pub async fn drive(
    connections: Arc<Connections>,
    form: Form,
    sessions: Vec<Session>,
    n_clients: usize,
    stop: Option<Duration>,
    progress: Progress,
) -> Vec<Outcome> {
    let is_open = sessions.first().is_some_and(|session| session.at.is_some());
    let run = Arc::new(Run {
        connections,
        form,
        sessions,
        clock: Clock {
            began: Instant::now(),
        },
        progress,
        stop,
        next: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    if is_open {
        run.open(&mut tasks).await;
    } else {
        for _ in 0..n_clients {
            tasks.spawn(Arc::clone(&run).client());
        }
    }
    let mut outcomes: Vec<Outcome> = tasks.join_all().await.into_iter().flatten().collect();
    outcomes.sort_by_key(|outcome| (outcome.session, outcome.turn));
    run.progress.end();
    outcomes
}

impl Run {
    /// Starts each session at its time, whatever has become of those before.
    async fn open(self: &Arc<Self>, tasks: &mut JoinSet<Vec<Outcome>>) {
        for (i, session) in self.sessions.iter().enumerate() {
            let at = session.at.unwrap_or_default();
            if self.stop.is_some_and(|stop| at > stop) {
                break;
            }
            tokio::time::sleep_until((self.clock.began + at).into()).await;
            tasks.spawn(Arc::clone(self).session(i, at.as_secs_f64()));
        }
    }

    /// One client of a closed loop: session after session.
    async fn client(self: Arc<Self>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        loop {
            let now = self.clock.now();
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let is_over = self.stop.is_some_and(|stop| now > stop.as_secs_f64());
            if i >= self.sessions.len() || is_over {
                return outcomes;
            }
            outcomes.extend(Arc::clone(&self).session(i, now).await);
        }
    }

    /// One conversation. Its next turn is meant for when its user has read the answer; a turn
    /// that fails ends it.
    async fn session(self: Arc<Self>, i: usize, mut intended: f64) -> Vec<Outcome> {
        let session = &self.sessions[i];
        let mut outcomes = Vec::with_capacity(session.turns.len());
        let mut before: Vec<(String, String)> = Vec::new();
        for (turn_idx, turn) in session.turns.iter().enumerate() {
            let (body, expected) = self.form.body(&session.model, turn, &before);
            let call = Call {
                session: i,
                turn: turn_idx,
                model: session.model.clone(),
                endpoint: self.form.endpoint,
                is_stream: self.form.is_stream,
                body: body.to_string().into(),
                expected,
                intended,
            };
            self.progress.sent();
            let mut outcome = call.run(&self.connections, self.clock).await;
            self.progress.ended(&outcome);
            let has_failed = outcome.failure.is_some();
            let answer = std::mem::take(&mut outcome.text);
            let ended = outcome.ended;
            outcomes.push(outcome);
            if has_failed || turn_idx + 1 == session.turns.len() {
                break;
            }
            before.push((self.form.text(&turn.pieces), answer));
            intended = ended + session.think_time.as_secs_f64();
            let at = self.clock.began + Duration::from_secs_f64(intended);
            tokio::time::sleep_until(at.into()).await;
        }
        outcomes
    }
}
