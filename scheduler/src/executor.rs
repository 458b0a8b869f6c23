//! Who runs batches.

use crate::{Batch, Sampled};

/// Runs batches. Implemented by the model runner and by the strict fake of the simulation.
pub trait Executor {
    /// Computes all rows in one ragged forward and answers with one [`Sampled`] a row, in order.
    ///
    /// An error (or a panic) fails the rows of this batch only; the executor stays usable.
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError>;

    /// Why no batch can be computed any more, whatever it is; asked after an error. `None`: the
    /// next one may.
    fn lost(&self) -> Option<String> {
        None
    }

    /// Batches that may be started before the first of them is finished: 1 or 2.
    fn n_in_flight(&self) -> usize {
        1
    }

    /// Starts a batch, behind those that were started before and are computed first. Rows may
    /// take their token from the batch before ([`pending`](crate::BatchRow::pending)) if its
    /// ticket [says so](Ticket::can_be_followed).
    ///
    /// An executor that does not compute beside its caller does all the work here.
    fn start(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        self.execute(batch).map(Ticket::done)
    }

    /// Waits for the oldest batch that was started, whose ticket this is. Its error fails the rows
    /// of this batch only; what was started behind it has results of its own.
    fn finish(&mut self, ticket: Ticket, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        let _ = batch;
        let missing = || ExecutorError("a ticket of another executor".to_owned());
        ticket.done.ok_or_else(missing)
    }
}

/// A batch that was started.
#[derive(Debug)]
pub struct Ticket {
    /// Results that were there at once.
    done: Option<Vec<Sampled>>,
    can_be_followed: bool,
}

impl Ticket {
    /// Of a batch that is computed already.
    pub fn done(results: Vec<Sampled>) -> Self {
        Self {
            done: Some(results),
            can_be_followed: false,
        }
    }

    /// Of a batch that is being computed, and whether the next one may be started before it is
    /// finished.
    pub fn started(can_be_followed: bool) -> Self {
        Self {
            done: None,
            can_be_followed,
        }
    }

    /// Whether the next batch may be started now.
    pub fn can_be_followed(&self) -> bool {
        self.can_be_followed
    }

    /// The results, if they were there at once.
    pub fn into_done(self) -> Option<Vec<Sampled>> {
        self.done
    }
}

/// A step that could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExecutorError(pub String);
