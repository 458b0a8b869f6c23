//! Multi-head latent attention (<https://arxiv.org/abs/2405.04434>): keys and values come out
//! of one narrow vector, and one rotated part of the key is shared by all heads.
//!
//! Here the narrow vector is widened before it is cached, so that attention is the one all
//! families use: exact, at the price of a cache as large as that of plain heads. A head is
//! `[rotated, not rotated]`, whereas files have the rotated values last; values are padded with
//! zeros to the length of a key.

use kernels::{Buffer, Device, LinearCall, StridedCopy};

use crate::activations::Activations;
use crate::adapter::AdapterRows;
use crate::adapter::sites::{self, LatentPart, Sites, latent_row};
use crate::config::LatentConfig;
use crate::norm::NormLayer;
use crate::piece::Piece;
use crate::weights::{Projection, Weights};
use crate::{LoadError, ModelConfig};

#[derive(Debug)]
pub(crate) struct LatentProjections {
    /// To the narrow vector of queries, and its norm.
    q_down: Option<(Projection, NormLayer)>,
    q_up: Projection,
    /// To the narrow vector of keys and values, and to the shared rotated part of keys.
    kv_down: Projection,
    k_rope: Projection,
    kv_norm: NormLayer,
    /// The parts of keys that are not rotated, and values.
    k_up: Projection,
    v_up: Projection,
    config: LatentConfig,
    /// The layer's first site.
    site: usize,
    n_heads: usize,
    head_dim: usize,
}

impl LatentProjections {
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        prefix: &str,
        layer: usize,
    ) -> Result<Self, LoadError> {
        let latent = config
            .attention
            .latent
            .expect("called for latent attention");
        let LatentConfig {
            kv_rank, rope_dim, ..
        } = latent;
        let (hidden, n_heads, head_dim) = (config.hidden_size, config.n_heads, config.head_dim);
        let names = &weights.names().latent;
        let name = |name: &str| format!("{prefix}{name}");
        let norm_id = |kind| sites::norm(layer, kind);
        let bias = config.attention.qkv_bias;
        let q_row = |row: usize| latent_row(config, LatentPart::Query, row);
        let q_piece = Piece::rows(n_heads * head_dim, &q_row);
        let q_shape = |n_in| [n_heads * head_dim, n_in];
        let (q_down, q_up) = match latent.q_rank {
            None => (
                None,
                weights.projection_of(&name(names.q), &q_piece, q_shape(hidden), false)?,
            ),
            Some(rank) => {
                let down = weights.projection(&name(names.q_down), rank, hidden, bias)?;
                let norm = NormLayer::load(
                    weights,
                    &config.norm,
                    &name(names.q_norm),
                    norm_id(sites::LATENT_Q_NORM),
                    rank,
                )?;
                let up =
                    weights.projection_of(&name(names.q_up), &q_piece, q_shape(rank), false)?;
                (Some((down, norm)), up)
            }
        };
        let down = |part: LatentPart, n_out: usize| {
            let row = |row| latent_row(config, part, row);
            let piece = Piece::rows(kv_rank + rope_dim, &row);
            weights.projection_of(&name(names.kv_down), &piece, [n_out, hidden], bias)
        };
        let [k_up, v_up] = load_kv_up(weights, config, latent, prefix)?;
        Ok(Self {
            q_down,
            q_up,
            kv_down: down(LatentPart::Narrow, kv_rank)?,
            k_rope: down(LatentPart::KeyRope, rope_dim)?,
            kv_norm: NormLayer::load(
                weights,
                &config.norm,
                &name(names.kv_norm),
                norm_id(sites::LATENT_KV_NORM),
                kv_rank,
            )?,
            k_up,
            v_up,
            config: latent,
            site: sites::layer(config, layer),
            n_heads,
            head_dim,
        })
    }

    /// From `normed` to `q`, `k` and `v`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        n_rows: usize,
        a: &mut Activations,
    ) {
        let linear = |x: &Buffer, site, calls: &mut [LinearCall<'_>]| {
            adapters.linear_into(device, x, n_rows, self.site + site, calls);
        };
        let l = &mut a.latent;
        let LatentConfig {
            rope_dim,
            value_dim,
            ..
        } = self.config;
        let down = &mut [
            self.kv_down.call(&mut l.kv),
            self.k_rope.call(&mut l.k_rope),
        ];
        linear(&a.normed, sites::QKV, down);
        match &self.q_down {
            None => linear(&a.normed, sites::Q_UP, &mut [self.q_up.call(&mut a.q)]),
            Some((q_down, norm)) => {
                linear(&a.normed, sites::Q_DOWN, &mut [q_down.call(&mut l.q)]);
                norm.in_place(device, adapters, &mut l.q, n_rows);
                linear(&l.q, sites::Q_UP, &mut [self.q_up.call(&mut a.q)]);
            }
        }
        self.kv_norm.in_place(device, adapters, &mut l.kv, n_rows);
        let up = &mut [self.k_up.call(&mut l.k), self.v_up.call(&mut l.v)];
        linear(&l.kv, sites::KV_UP, up);
        let n_heads = self.n_heads;
        let plain_dim = self.head_dim - rope_dim;
        let copy = |from: &Buffer, len, repeat, to: &mut Buffer, to_offset| {
            device.strided_copy(StridedCopy {
                from,
                from_stride: len,
                from_offset: 0,
                repeat,
                to,
                to_stride: self.head_dim,
                to_offset,
                n: n_rows * n_heads,
                len,
            });
        };
        copy(&l.k_rope, rope_dim, n_heads, &mut a.k, 0);
        copy(&l.k, plain_dim, 1, &mut a.k, rope_dim);
        copy(&l.v, value_dim, 1, &mut a.v, 0);
    }

    /// What attention gave without the padding of values, in `out`.
    pub(crate) fn narrow<'a>(
        &self,
        device: &Device,
        n_rows: usize,
        attended: &Buffer,
        out: &'a mut Buffer,
    ) -> &'a Buffer {
        device.strided_copy(StridedCopy {
            from: attended,
            from_stride: self.head_dim,
            from_offset: 0,
            repeat: 1,
            to: out,
            to_stride: self.config.value_dim,
            to_offset: 0,
            n: n_rows * self.n_heads,
            len: self.config.value_dim,
        });
        out
    }

    /// Its norms.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &NormLayer> {
        let q_norm = self.q_down.iter().map(|(_, norm)| norm);
        q_norm.chain([&self.kv_norm])
    }

    /// Enters its layers at their sites.
    pub(crate) fn enter_sites(&self, sites: &mut Sites) {
        sites.enter(self.site + sites::QKV, [&self.kv_down, &self.k_rope]);
        if let Some((q_down, _)) = &self.q_down {
            sites.enter(self.site + sites::Q_DOWN, [q_down]);
        }
        sites.enter(self.site + sites::Q_UP, [&self.q_up]);
        sites.enter(self.site + sites::KV_UP, [&self.k_up, &self.v_up]);
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let q_down = self.q_down.as_ref().map_or(0, |(down, _)| down.n_bytes());
        let others = [
            &self.q_up,
            &self.kv_down,
            &self.k_rope,
            &self.k_up,
            &self.v_up,
        ];
        q_down
            + others
                .iter()
                .map(|projection| projection.n_bytes())
                .sum::<usize>()
    }
}

/// Keys (what is not rotated) and values out of the narrow vector, however they are stored.
fn load_kv_up(
    weights: &Weights<'_>,
    config: &ModelConfig,
    latent: LatentConfig,
    prefix: &str,
) -> Result<[Projection; 2], LoadError> {
    let LatentConfig {
        kv_rank,
        rope_dim,
        value_dim,
        ..
    } = latent;
    let n_heads = config.n_heads;
    let plain_dim = config.head_dim - rope_dim;
    let names = &weights.names().latent;
    let [k, v] = names.kv_up_parted;
    let parted = format!("{prefix}{k}.weight");
    if !k.is_empty() && weights.has(&parted) {
        // Turned round to be multiplied from the other side; back here, widened, because rows of
        // blocks cannot be turned.
        let turned = weights.values_of_shape(&parted, &[n_heads, kv_rank, plain_dim])?;
        let mut keys = Vec::with_capacity(turned.len());
        for head in turned.chunks_exact(kv_rank * plain_dim) {
            for i in 0..plain_dim {
                keys.extend(head.iter().skip(i).step_by(plain_dim));
            }
        }
        let name = format!("{prefix}{v}.weight");
        let values = weights.values_of_shape(&name, &[n_heads, value_dim, kv_rank])?;
        return Ok([
            weights.pack_values(&parted, &keys, [n_heads * plain_dim, kv_rank])?,
            weights.pack_values(&name, &values, [n_heads * value_dim, kv_rank])?,
        ]);
    }
    let kv_dim = plain_dim + value_dim;
    let up = |part: LatentPart, dim: usize| {
        let row = |row| latent_row(config, part, row);
        let piece = Piece::rows(n_heads * kv_dim, &row);
        let name = format!("{prefix}{}", names.kv_up);
        weights.projection_of(&name, &piece, [n_heads * dim, kv_rank], false)
    };
    Ok([
        up(LatentPart::Key, plain_dim)?,
        up(LatentPart::Value, value_dim)?,
    ])
}
