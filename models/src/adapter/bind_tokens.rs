//! Adapters of what belongs to single tokens: the embedding, and rows of the head.

use kernels::{LowRankSource, LowRankTarget, WeightType};

use super::bind::Binder;
use super::config::PeftConfig;
use super::embedding::EmbeddingLowRank;
use super::file::{ModuleTensors, Named};
use super::modules::LinearModule;
use super::pattern::ends_with;
use super::{AdapterError, sites};

impl<'a> Binder<'a> {
    pub(super) fn embedding(
        &mut self,
        name: &str,
        tensors: &ModuleTensors<'a>,
    ) -> Result<(), AdapterError> {
        self.allow(tensors, &["embedding_a", "embedding_b", "tokens", "weight"])?;
        let config = self.target.config();
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        if config.logits.tied && self.file.config().is_some_and(|config| config.ties_weights) {
            let message = "ensure_weight_tying of adapter_config.json is not supported for a model \
                           whose head is its embedding";
            return Err(self.file.refuse(name, message));
        }
        if let Some(weight) = &tensors.weight {
            weight.check(&[vocab, hidden])?;
            let packed = self.pack(weight, weight.tensor.bytes.to_vec(), [vocab, hidden])?;
            self.bound.embedding.replaced = Some(packed);
        }
        match (&tensors.embedding_a, &tensors.embedding_b) {
            (Some(a), Some(b)) => self.embedding_low_rank(name, a, b)?,
            (None, None) => {}
            (Some(lone), None) | (None, Some(lone)) => {
                return Err(self
                    .file
                    .refuse_tensor(lone, "is there without its other half"));
            }
        }
        if let Some(own) = &tensors.tokens {
            let tokens = self.tokens_of(name, own)?;
            let mut base = vec![0.0; hidden];
            for (token, own) in tokens.iter().zip(own.values().chunks_exact(hidden)) {
                self.target.embedding().read_row(*token as usize, &mut base);
                let added = own.iter().zip(&base).map(|(own, base)| own - base);
                self.bound.embedding.tokens.insert(*token, added.collect());
            }
            if config.logits.tied {
                self.tied_tokens(own, &tokens)?;
            }
        }
        Ok(())
    }

    fn embedding_low_rank(
        &mut self,
        name: &str,
        a: &Named<'a>,
        b: &Named<'a>,
    ) -> Result<(), AdapterError> {
        if self.file.config().is_some_and(|config| config.is_dora) {
            return Err(self
                .file
                .refuse_tensor(a, "and use_dora: DoRA of embeddings is not supported"));
        }
        let config = self.target.config();
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let is_peft = self.file.config().is_some();
        let found = b.tensor.shape.last().copied().unwrap_or(0);
        let (rank, scale) = self.file.rank_and_scale(name, found)?;
        b.check(&[hidden, rank])?;
        a.check(&if is_peft {
            [rank, vocab]
        } else {
            [vocab, rank]
        })?;
        let width = a.tensor.ty.block_bytes();
        let bytes = if is_peft {
            let mut bytes = Vec::with_capacity(a.tensor.bytes.len());
            for token in 0..vocab {
                for k in 0..rank {
                    let at = (k * vocab + token) * width;
                    bytes.extend_from_slice(&a.tensor.bytes[at..at + width]);
                }
            }
            bytes
        } else {
            a.tensor.bytes.to_vec()
        };
        self.bound.embedding.low_rank = Some(EmbeddingLowRank {
            a: self.pack(a, bytes, [vocab, rank])?,
            b: self.pack(b, b.tensor.bytes.to_vec(), [hidden, rank])?,
            scale,
        });
        self.bound.rank = self.bound.rank.max(rank);
        Ok(())
    }

    /// Checks vectors of single tokens; which tokens they are.
    fn tokens_of(&self, name: &str, own: &Named<'_>) -> Result<Vec<u32>, AdapterError> {
        let config = self.target.config();
        let lists = self.file.config().map(|config: &PeftConfig| &config.tokens);
        let mut lists = lists.into_iter().flatten();
        let list = lists.find(|(module, _)| module.is_empty() || ends_with(name, module));
        let Some((_, tokens)) = list else {
            let message = "has no place: trainable_token_indices of adapter_config.json does not \
                           name this module";
            return Err(self.file.refuse_tensor(own, message));
        };
        if let Some(token) = tokens.iter().find(|t| **t as usize >= config.vocab_size) {
            let message = format!("is for token {token}, which is not in the vocabulary");
            return Err(self.file.refuse_tensor(own, &message));
        }
        own.check(&[tokens.len(), config.hidden_size])?;
        Ok(tokens.clone())
    }

    /// Vectors of single tokens in a head of its own.
    pub(super) fn tokens_of_head(
        &mut self,
        name: &str,
        module: &LinearModule,
        tensors: &ModuleTensors<'a>,
    ) -> Result<(), AdapterError> {
        let Some(own) = &tensors.tokens else {
            return Ok(());
        };
        if module.site != sites::HEAD {
            return Err(self
                .file
                .refuse_tensor(own, "is for a module that has no tokens"));
        }
        let tokens = self.tokens_of(name, own)?;
        // In a file with tied weights both names stand for the same vectors.
        if self.target.config().logits.tied {
            return Ok(());
        }
        self.tied_tokens(own, &tokens)
    }

    /// Outputs of the head for single tokens: `(new - old) . x` is added to their logits.
    fn tied_tokens(&mut self, own: &Named<'a>, tokens: &[u32]) -> Result<(), AdapterError> {
        let head = &self.target.layers(sites::HEAD)[0].weight;
        let (n_out, n_in) = (head.n_out(), head.n_in());
        let mut base = vec![0.0; n_in];
        let mut a = Vec::with_capacity(tokens.len() * n_in * 4);
        for (token, own) in tokens.iter().zip(own.values().chunks_exact(n_in)) {
            head.read_row(*token as usize, &mut base);
            let added = own.iter().zip(&base).map(|(own, base)| own - base);
            a.extend(added.flat_map(f32::to_le_bytes));
        }
        let rank = tokens.len();
        let mut b = vec![0_u8; n_out * rank * 4];
        for (k, token) in tokens.iter().enumerate() {
            let at = (*token as usize * rank + k) * 4;
            b[at..at + 4].copy_from_slice(&1.0_f32.to_le_bytes());
        }
        let source = LowRankSource {
            ty: WeightType::F32,
            n_in,
            a: a.into(),
            scales: vec![1.0; rank],
            targets: vec![LowRankTarget {
                output: 0,
                n_out,
                first_rank: 0,
                rank,
                b: b.into(),
                column_scale: None,
            }],
        };
        let packed = self.pack_low_rank(&[source])?;
        let site = self.bound.sites.entry(sites::HEAD).or_default();
        site.low_rank.extend(packed);
        Ok(())
    }
}
