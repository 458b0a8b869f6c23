//! Classes of requests, and who gives way to whom.

use crate::sequence::Age;

/// A request's class. Turns go to the higher class first, within the bound of the age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
    /// Fills rows, tokens and blocks that the others leave, and gives way to them at once.
    Batch,
}

impl Priority {
    /// All classes, those that go first first.
    pub const ALL: [Self; 4] = [Self::High, Self::Normal, Self::Low, Self::Batch];
}

/// Who goes before whom when there are too few blocks. The greatest gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// False goes before true: the elder goes before all others.
    pub(crate) is_behind_elder: bool,
    pub(crate) priority: Priority,
    pub(crate) age: Age,
}

/// Whether a sequence has a claim, or takes what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Regular,
    Batch,
}

impl Rank {
    /// The elder has a claim whatever its class.
    pub(crate) fn tier(self) -> Tier {
        if self.is_behind_elder && self.priority == Priority::Batch {
            Tier::Batch
        } else {
            Tier::Regular
        }
    }

    pub(crate) fn is_elder(self) -> bool {
        !self.is_behind_elder
    }
}
