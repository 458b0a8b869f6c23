//! Devices that gather what each of them has: what stands behind `ncclComm`s made together.
//!
//! A stream that reaches a gather stands still until the streams of all other ranks have reached
//! theirs, as the kernels of the real library do: for ever, if one of them does not come.

use crate::driver::{Driver, tell_met};
use crate::error::Error;
use crate::report::append;

/// Ranks made together.
#[derive(Debug)]
pub(crate) struct Clique {
    pub(crate) ranks: Vec<Rank>,
    /// Nobody waits any more.
    pub(crate) aborted: bool,
}

/// One device's place.
#[derive(Debug)]
pub(crate) struct Rank {
    pub(crate) device: u32,
    pub(crate) at: Meeting,
}

/// How far a rank is with its next gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Coming,
    Here(Gather),
    Met,
}

/// A gather of one rank: its bytes go to place `rank` of all ranks' `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gather {
    pub(crate) clique: usize,
    pub(crate) rank: usize,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) len: usize,
}

impl Driver {
    /// A rank's stream has reached its gather; whether it may go on.
    pub(crate) fn meet(&mut self, device: u32, gather: Gather) -> bool {
        let Some(clique) = self.cliques.get_mut(&gather.clique) else {
            return true;
        };
        let rank = &mut clique.ranks[gather.rank];
        assert_eq!(rank.device, device, "a gather on another device's stream");
        if rank.at == Meeting::Coming {
            rank.at = Meeting::Here(gather);
        }
        let here = |rank: &Rank| match rank.at {
            Meeting::Here(gather) => Some(gather),
            _ => None,
        };
        if let Some(all) = clique.ranks.iter().map(here).collect::<Option<Vec<_>>>() {
            for rank in &mut clique.ranks {
                rank.at = Meeting::Met;
            }
            self.exchange(&all);
            tell_met();
        }
        let clique = &self.cliques[&gather.clique];
        clique.aborted || clique.ranks[gather.rank].at == Meeting::Met
    }

    /// A rank goes on after a gather.
    pub(crate) fn leave(&mut self, gather: Gather) -> Result<(), Error> {
        if let Some(clique) = self.cliques.get_mut(&gather.clique) {
            clique.ranks[gather.rank].at = Meeting::Coming;
        }
        Ok(())
    }

    /// All ranks are here. What is wrong with a rank ends its own context.
    fn exchange(&mut self, all: &[Gather]) {
        let len = all[0].len;
        if all.iter().any(|gather| gather.len != len) {
            self.complain(&format!("ranks gather unequal lengths: {all:?}"));
            return;
        }
        if let Some(trace) = &self.settings.trace {
            append(trace, &format!("gather of {} times {len} bytes", all.len()));
        }
        for (i, from) in all.iter().enumerate() {
            let mut bytes = vec![0; len];
            let done = self.memory_of(from.from).map(|memory| {
                let read = memory.read(from.from, &mut bytes);
                read.map(|_| ())
            });
            self.settle(from, done);
            for to in all {
                let at = to.to + (i * len) as u64;
                let done = self.memory_of(at).map(|memory| memory.write(at, &bytes));
                self.settle(to, done);
            }
        }
    }

    fn settle(&mut self, gather: &Gather, done: Result<Result<(), ptxsim::FaultKind>, Error>) {
        let done = done.and_then(|done| self.checked("gather", done));
        if let Err(error) = done {
            let device = self.cliques[&gather.clique].ranks[gather.rank].device;
            self.devices[device as usize].lost = Some(error);
        }
    }
}
