//! An executor without a model: as strict as real kernels, and so fast that thousands of
//! simulations fit in a test.
//!
//! It simulates KV memory. Computing a token writes what it is, where it stands and all that it
//! follows into a slot; "attention" reads the slots of all positions before it, through the
//! row's blocks. What is drawn next depends on everything that was read, so a wrong slot, a
//! stale block, another request's context or another adapter's keys become a wrong token. What
//! real kernels take for granted is asserted instead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scheduler::{
    AdapterId, Batch, BatchRow, BlockId, Executor, ExecutorError, Sampled, SequenceId, Ticket,
    TokenId,
};

use crate::fake_flight::{Drawn, Flying};
use crate::fake_model::{Context, FakeModel};
use crate::fake_pooling;

/// Sizes of the simulated memory and vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeConfig {
    pub block_size: usize,
    pub n_blocks: usize,
    /// Token ids are below this.
    pub n_vocab: u32,
    /// Positions that a query sees, itself among them; `None`: all.
    pub window: Option<usize>,
}

/// One position of the simulated KV memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Empty,
    /// Written by a step that failed.
    Poisoned,
    Stored {
        token: TokenId,
        position: u32,
        adapter: Option<AdapterId>,
        /// Stands for key and value: depends on the token and on all positions before it.
        value: u64,
    },
}

/// The strict fake. Its answers depend on the rows' own content only, never on the batch.
///
/// # Panics
/// [`execute`](Executor::execute) panics, naming sequence and rule, when a batch breaks what
/// kernels rely on.
#[derive(Debug)]
pub struct FakeExecutor {
    config: FakeConfig,
    model: FakeModel,
    slots: Vec<Slot>,
    fails_next: bool,
    rows_to_fail: BTreeSet<SequenceId>,
    rows_to_postpone: BTreeSet<SequenceId>,
    n_in_flight: usize,
    /// Batches that were started, the oldest first. Each is computed as late as can be: when it is
    /// finished.
    flying: VecDeque<Flying>,
    /// What the batch computed last has drawn.
    drawn: Drawn,
}

impl FakeExecutor {
    pub fn new(config: FakeConfig) -> Self {
        Self {
            config,
            model: FakeModel::new(config.n_vocab),
            slots: vec![Slot::Empty; config.n_blocks * config.block_size],
            fails_next: false,
            rows_to_fail: BTreeSet::new(),
            rows_to_postpone: BTreeSet::new(),
            n_in_flight: 1,
            flying: VecDeque::new(),
            drawn: Drawn::default(),
        }
    }

    /// Batches can be started while another has not been finished.
    pub fn with_two_in_flight(self) -> Self {
        Self {
            n_in_flight: 2,
            ..self
        }
    }

    /// Rows of the oldest batch in flight whose results nobody may look at, by their sequences.
    pub fn spoilt(&self) -> BTreeSet<SequenceId> {
        let oldest = self.flying.front();
        oldest
            .map(|flying| flying.spoilt.clone())
            .unwrap_or_default()
    }

    /// The next batch fails after it has spoilt every slot that it was to write.
    pub fn fail_next(&mut self) {
        self.fails_next = true;
    }

    /// The row of a sequence fails alone in the next batch, after it has spoilt every slot that
    /// it was to write.
    pub fn fail_row_next(&mut self, id: SequenceId) {
        self.rows_to_fail.insert(id);
    }

    /// The token of a sequence cannot be drawn in the next batch that is computed, if another was
    /// started behind it.
    pub fn postpone_row_next(&mut self, id: SequenceId) {
        self.rows_to_postpone.insert(id);
    }

    fn slot(&self, row: &BatchRow, position: usize) -> usize {
        let block = row.blocks[position / self.config.block_size - row.first_block as usize];
        block.0 as usize * self.config.block_size + position % self.config.block_size
    }

    fn own_slots(&self, row: &BatchRow) -> impl Iterator<Item = usize> {
        let start = row.start as usize;
        (start..start + row.tokens.len()).map(|position| self.slot(row, position))
    }

    /// Blocks that a row writes into.
    fn own_blocks(&self, row: &BatchRow) -> BTreeSet<BlockId> {
        let block_size = self.config.block_size;
        let blocks = self.own_slots(row).map(|slot| slot / block_size);
        blocks.map(|block| BlockId(block as u32)).collect()
    }

    fn assert_well_formed(&self, batch: &Batch) {
        assert!(!batch.rows.is_empty(), "a batch without rows");
        let mut sequences = BTreeSet::new();
        for row in &batch.rows {
            let id = row.sequence;
            assert!(sequences.insert(id), "{id} has two rows");
            assert!(!row.tokens.is_empty(), "{id}: a row without tokens");
            let follows = self.flying.back();
            Flying::assert_pending(follows, row);
            self.assert_vocabulary(row);
            let n_positions = row.start as usize + row.tokens.len();
            assert!(
                self.first_stored(row) + row.blocks.len() * self.config.block_size >= n_positions,
                "{id}: {} blocks do not cover {n_positions} positions",
                row.blocks.len()
            );
            assert!(
                self.first_stored(row) <= self.first_seen(row),
                "{id}: blocks are gone that position {} sees",
                row.start
            );
            let distinct: BTreeSet<_> = row.blocks.iter().collect();
            assert!(distinct.len() == row.blocks.len(), "{id}: a block twice");
            for block in &row.blocks {
                let exists = (block.0 as usize) < self.config.n_blocks;
                assert!(exists, "{id}: {block} does not exist");
            }
            assert_scoring(row);
            fake_pooling::assert_spec(row);
        }
        self.assert_apart(batch);
    }

    fn assert_vocabulary(&self, row: &BatchRow) {
        let targets = row.scoring.iter().flat_map(|scoring| &scoring.targets);
        for &token in row.tokens.iter().chain(targets) {
            let n_vocab = self.config.n_vocab;
            assert!(
                token < n_vocab,
                "{}: token {token} of {n_vocab}",
                row.sequence
            );
        }
    }

    /// No slot is written by two rows, or written by one and read as its past by another.
    fn assert_apart(&self, batch: &Batch) {
        let mut writers = BTreeMap::new();
        for row in &batch.rows {
            for slot in self.own_slots(row) {
                if let Some(other) = writers.insert(slot, row.sequence) {
                    panic!("{} and {other} write the same slot {slot}", row.sequence);
                }
            }
        }
        for row in &batch.rows {
            for position in self.first_stored(row)..row.start as usize {
                if let Some(writer) = writers.get(&self.slot(row, position)) {
                    panic!("{writer} writes where {} has its past", row.sequence);
                }
            }
        }
    }

    /// First position that the row's blocks hold.
    fn first_stored(&self, row: &BatchRow) -> usize {
        row.first_block as usize * self.config.block_size
    }

    /// First position that the row's first token sees.
    fn first_seen(&self, row: &BatchRow) -> usize {
        let window = self.config.window.unwrap_or(usize::MAX);
        (row.start as usize + 1).saturating_sub(window)
    }

    /// Reads what the row sees of its past, position by position.
    fn read_past(&self, row: &BatchRow, tokens: &mut Vec<TokenId>) -> Context {
        let id = row.sequence;
        let mut context = Context::new(self.config.window);
        for at in self.first_seen(row)..row.start as usize {
            let Slot::Stored {
                token,
                position,
                adapter,
                value,
            } = self.slots[self.slot(row, at)]
            else {
                panic!("{id}: position {at} was never computed, or by a step that failed");
            };
            assert!(
                position as usize == at,
                "{id}: position {at} holds {position}"
            );
            assert!(
                adapter == row.adapter,
                "{id}: position {at} is of {adapter:?}"
            );
            // With a window, what the first positions saw is gone.
            assert!(
                self.config.window.is_some() || value == context.value(token, position, adapter),
                "{id}: position {at} was computed after other tokens than these"
            );
            context.push(value);
            tokens.push(token);
        }
        context
    }

    fn poison(&mut self, row: &BatchRow) {
        let slots: Vec<usize> = self.own_slots(row).collect();
        for slot in slots {
            self.slots[slot] = Slot::Poisoned;
        }
    }

    fn compute(&mut self, row: &BatchRow, fails: bool) -> Sampled {
        if fails {
            self.poison(row);
            return Sampled {
                failed: Some("the fake was told to fail this row".to_owned()),
                ..nothing(row)
            };
        }
        let mut tokens = Vec::new();
        let mut context = self.read_past(row, &mut tokens);
        let mut scored = Vec::new();
        let mut states = Vec::with_capacity(row.tokens.len());
        for (i, &token) in row.tokens.iter().enumerate() {
            let position = row.start + i as u32;
            let value = context.value(token, position, row.adapter);
            let slot = self.slot(row, position as usize);
            self.slots[slot] = Slot::Stored {
                token,
                position,
                adapter: row.adapter,
                value,
            };
            context.push(value);
            states.push(value);
            tokens.push(token);
            if let Some(scoring) = &row.scoring {
                let target = i.checked_sub(scoring.first as usize);
                if let Some(&target) = target.and_then(|t| scoring.targets.get(t)) {
                    scored.push(self.model.logprobs(context.fold(), target, scoring.n_top));
                }
            }
        }
        let token = row.sample.as_ref().map(|spec| {
            assert_history(row, &tokens);
            self.model.draw(context.fold(), row.sequence.index, spec)
        });
        Sampled {
            sequence: row.sequence,
            token,
            scored,
            pooled: fake_pooling::pooled(row, &states),
            failed: None,
            postponed: false,
        }
    }

    /// Computes a batch. What follows rows that gave no token is spoilt.
    fn run(&mut self, flying: &Flying) -> Result<Vec<Sampled>, ExecutorError> {
        let fails = std::mem::take(&mut self.fails_next);
        let to_fail = std::mem::take(&mut self.rows_to_fail);
        let mut to_postpone = std::mem::take(&mut self.rows_to_postpone);
        if self.flying.is_empty() {
            to_postpone.clear();
        }
        let mut results = Vec::with_capacity(flying.batch.rows.len());
        for row in &flying.batch.rows {
            let row = &self.drawn.resolve(row);
            results.push(if flying.spoilt.contains(&row.sequence) {
                self.poison(row);
                Sampled::drawn(row, self.config.n_vocab)
            } else if fails {
                self.compute(row, true)
            } else if row.sample.is_some() && to_postpone.contains(&row.sequence) {
                self.poison(row);
                Sampled {
                    postponed: true,
                    ..nothing(row)
                }
            } else {
                self.compute(row, to_fail.contains(&row.sequence))
            });
        }
        self.drawn = Drawn::of(&results);
        if let Some(next) = self.flying.front_mut() {
            next.spoil(&results);
        }
        if fails {
            return Err(ExecutorError("the fake was told to fail".to_owned()));
        }
        Ok(results)
    }
}

fn nothing(row: &BatchRow) -> Sampled {
    Sampled {
        token: None,
        ..Sampled::drawn(row, 0)
    }
}

impl Executor for FakeExecutor {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        assert!(self.flying.is_empty(), "a batch is in flight");
        self.assert_well_formed(batch);
        self.run(&Flying::new(batch))
    }

    fn n_in_flight(&self) -> usize {
        self.n_in_flight
    }

    fn start(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        if self.n_in_flight == 1 {
            return self.execute(batch).map(Ticket::done);
        }
        self.assert_well_formed(batch);
        assert!(self.flying.len() < self.n_in_flight, "too many batches");
        for flying in &self.flying {
            flying.assert_undisturbed(batch, |row| self.own_blocks(row));
        }
        self.flying.push_back(Flying::new(batch));
        Ok(Ticket::started(true))
    }

    fn finish(&mut self, ticket: Ticket, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        if let Some(results) = ticket.into_done() {
            return Ok(results);
        }
        let flying = self.flying.pop_front().expect("it was started");
        assert!(flying.batch == *batch, "the oldest is finished first");
        self.run(&flying)
    }
}

/// Targets lie within the row, and each is the token that follows, where the row has it.
fn assert_scoring(row: &BatchRow) {
    let Some(scoring) = &row.scoring else {
        return;
    };
    let id = row.sequence;
    let first = scoring.first as usize;
    assert!(!scoring.targets.is_empty(), "{id}: scoring without targets");
    assert!(
        first + scoring.targets.len() <= row.tokens.len(),
        "{id}: scoring goes beyond the row"
    );
    for (target, next) in scoring.targets.iter().zip(&row.tokens[first + 1..]) {
        assert!(target == next, "{id}: scored against another token");
    }
}

/// The counts and the history of a row that draws agree with what it sees in memory.
fn assert_history(row: &BatchRow, tokens: &[TokenId]) {
    let id = row.sequence;
    let Some(spec) = &row.sample else {
        return;
    };
    let n_positions = row.start as usize + row.tokens.len();
    let n_tokens = (spec.n_prompt + spec.n_generated) as usize;
    assert!(
        n_tokens == n_positions && spec.n_prompt > 0,
        "{id}: {} prompt and {} generated tokens, but {n_positions} in memory",
        spec.n_prompt,
        spec.n_generated,
    );
    let n_expected = if spec.params.needs_history() {
        n_tokens
    } else {
        0
    };
    assert!(
        spec.history.len() == n_expected && (n_expected == 0 || spec.history.ends_with(tokens)),
        "{id}: its history is not its own"
    );
}
