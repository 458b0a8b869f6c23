//! The attention block: projections, rotation, paged attention, output projection.

use kernels::{
    AttentionRow, Buffer, Device, KvCache, PagedAttention, RopeAngles, RopeStyle, RopeWriteKv,
};

use crate::activations::Activations;
use crate::adapter::AdapterRows;
use crate::adapter::sites::{self, Sites, qkv_row};
use crate::alibi::slopes;
use crate::config::{AttentionConfig, LayerConfig, QkNorm};
use crate::cut::Cut;
use crate::families::Qkv;
use crate::latent::LatentProjections;
use crate::norm::NormLayer;
use crate::piece::Piece;
use crate::weights::{Projection, Weights};
use crate::{LoadError, ModelConfig};

/// What attention has to know of a step, the same for all layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionStep<'a> {
    /// For each of the model's rotary embeddings.
    pub(crate) angles: &'a [RopeAngles<'a>],
    pub(crate) slots: &'a [u32],
    pub(crate) rows: &'a [AttentionRow<'a>],
    pub(crate) adapters: AdapterRows<'a>,
}

/// Weights of one layer's attention.
#[derive(Debug)]
pub(crate) struct Attention {
    projections: Projections,
    q_norm: Option<NormLayer>,
    k_norm: Option<NormLayer>,
    output: Projection,
    /// The layer's first site.
    site: usize,
    sinks: Option<Buffer>,
    slopes: Option<Buffer>,
    layer: LayerConfig,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    config: AttentionConfig,
}

/// How queries, keys and values come out of the normed input.
#[derive(Debug)]
enum Projections {
    Direct(Box<[Projection; 3]>),
    Latent(Box<LatentProjections>),
}

impl Attention {
    /// `prefix`: what stands before the names of layer `layer`, as `model.layers.0.`. `config` is
    /// that of the whole model; heads are packed that are this device's.
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        prefix: &str,
        layer: usize,
    ) -> Result<Self, LoadError> {
        let names = weights.names();
        let attention = &config.attention;
        let q_width = config.n_heads * config.head_dim;
        let kv_width = config.n_kv_heads * config.head_dim;
        let norm = |name: &str, id, whole| {
            let width = match attention.qk_norm {
                QkNorm::None => return Ok(None),
                QkNorm::Head => config.head_dim,
                QkNorm::Whole => whole,
            };
            NormLayer::load(weights, &config.norm, &format!("{prefix}{name}"), id, width).map(Some)
        };
        let (projections, output_in) = match attention.latent {
            None => (
                Projections::Direct(Box::new(load_qkv(weights, config, prefix)?)),
                q_width,
            ),
            Some(latent) => (
                Projections::Latent(Box::new(LatentProjections::load(
                    weights, config, prefix, layer,
                )?)),
                config.n_heads * latent.value_dim,
            ),
        };
        let heads = weights.part().range(config.n_heads);
        let sinks = || {
            let sinks = weights.values(&format!("{prefix}{}", names.sinks), config.n_heads)?;
            Ok(weights.buffer(&sinks[heads.clone()]))
        };
        Ok(Self {
            projections,
            q_norm: norm(names.q_norm, sites::norm(layer, sites::Q_NORM), q_width)?,
            k_norm: norm(names.k_norm, sites::norm(layer, sites::K_NORM), kv_width)?,
            output: weights.cut_projection(
                &Cut::Inputs(weights.part().range(output_in)),
                &format!("{prefix}{}", names.output),
                &Piece::all(config.hidden_size),
                [config.hidden_size, output_in],
                attention.output_bias,
            )?,
            site: sites::layer(config, layer),
            sinks: attention.sinks.then(sinks).transpose()?,
            slopes: attention
                .alibi
                .map(|factor| weights.buffer(&slopes(config.n_heads, factor)[heads.clone()])),
            layer: config.layers[layer],
            n_heads: heads.len(),
            n_kv_heads: weights.part().range(config.n_kv_heads).len(),
            head_dim: config.head_dim,
            config: attention.clone(),
        })
    }

    /// From `normed` to `block_out`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        step: AttentionStep<'_>,
        layer: usize,
        kv: &mut KvCache,
        a: &mut Activations,
    ) {
        let n_rows = step.slots.len();
        self.project(device, step.adapters, n_rows, a);
        device.rope_write_kv(RopeWriteKv {
            q: &mut a.q,
            k: &a.k,
            v: &a.v,
            n_heads: self.n_heads,
            angles: self.layer.rope.map_or(UNROTATED, |rope| step.angles[rope]),
            slots: step.slots,
            kv,
            layer,
        });
        device.paged_attention_into(PagedAttention {
            q: &a.q,
            kv,
            layer,
            rows: step.rows,
            n_heads: self.n_heads,
            scale: self.config.scale,
            window: self.layer.window,
            softcap: self.config.softcap,
            alibi_slopes: self.slopes.as_ref(),
            sinks: self.sinks.as_ref(),
            out: &mut a.attended,
        });
        let attended = match &self.projections {
            Projections::Direct(_) => &a.attended,
            Projections::Latent(latent) => latent.narrow(device, n_rows, &a.attended, &mut a.q),
        };
        let calls = &mut [self.output.call(&mut a.block_out)];
        let site = self.site + sites::OUTPUT;
        step.adapters
            .linear_into(device, attended, n_rows, site, calls);
    }

    /// From `normed` to `q`, `k` and `v`, normed and limited.
    fn project(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        n_rows: usize,
        a: &mut Activations,
    ) {
        match &self.projections {
            Projections::Direct(projections) => {
                let [q, k, v] = &**projections;
                let calls = &mut [q.call(&mut a.q), k.call(&mut a.k), v.call(&mut a.v)];
                adapters.linear_into(device, &a.normed, n_rows, self.site + sites::QKV, calls);
            }
            Projections::Latent(latent) => latent.forward(device, adapters, n_rows, a),
        }
        let (q_width, kv_width) = (
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        if let Some(limit) = self.config.clip {
            for (x, width) in [
                (&mut a.q, q_width),
                (&mut a.k, kv_width),
                (&mut a.v, kv_width),
            ] {
                device.clamp(x, limit, n_rows * width);
            }
        }
        let per_head = self.config.qk_norm == QkNorm::Head;
        let rows = |n_heads: usize| if per_head { n_rows * n_heads } else { n_rows };
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            q_norm.in_place(device, adapters, &mut a.q, rows(self.n_heads));
            k_norm.in_place(device, adapters, &mut a.k, rows(self.n_kv_heads));
        }
    }

    /// Its norms.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &NormLayer> {
        let latent = match &self.projections {
            Projections::Direct(_) => None,
            Projections::Latent(latent) => Some(latent.norms()),
        };
        let own = self.q_norm.iter().chain(&self.k_norm);
        own.chain(latent.into_iter().flatten())
    }

    /// Enters its layers at their sites.
    pub(crate) fn enter_sites(&self, sites: &mut Sites) {
        match &self.projections {
            Projections::Direct(all) => sites.enter(self.site + sites::QKV, all.iter()),
            Projections::Latent(latent) => latent.enter_sites(sites),
        }
        sites.enter(self.site + sites::OUTPUT, [&self.output]);
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let projections = match &self.projections {
            Projections::Direct(all) => all.iter().map(Projection::n_bytes).sum(),
            Projections::Latent(latent) => latent.n_bytes(),
        };
        projections + self.output.n_bytes()
    }
}

/// No value of a head is rotated.
const UNROTATED: RopeAngles<'static> = RopeAngles {
    cos: &[],
    sin: &[],
    rotary_dim: 0,
    style: RopeStyle::Half,
};

/// Query, key and value projections, however they are stored.
fn load_qkv(
    weights: &Weights<'_>,
    config: &ModelConfig,
    prefix: &str,
) -> Result<[Projection; 3], LoadError> {
    let (hidden, dim) = (config.hidden_size, config.head_dim);
    let (q_width, kv_width) = (config.n_heads * dim, config.n_kv_heads * dim);
    let n_stored = q_width + 2 * kv_width;
    let bias = config.attention.qkv_bias;
    let widths = [q_width, kv_width, kv_width];
    let load = |name: &str, piece: &Piece<'_>, i: usize| {
        let name = format!("{prefix}{name}");
        let cut = Cut::Outputs(weights.part().range(widths[i]));
        weights.cut_projection(&cut, &name, piece, [widths[i], hidden], bias)
    };
    let pieces = |name: &str, row: &dyn Fn(usize, usize) -> usize| {
        Ok([
            load(name, &Piece::rows(n_stored, &|r| row(0, r)), 0)?,
            load(name, &Piece::rows(n_stored, &|r| row(1, r)), 1)?,
            load(name, &Piece::rows(n_stored, &|r| row(2, r)), 2)?,
        ])
    };
    match weights.names().qkv {
        Qkv::Separate([q, k, v]) => Ok([
            load(q, &Piece::all(q_width), 0)?,
            load(k, &Piece::all(kv_width), 1)?,
            load(v, &Piece::all(kv_width), 2)?,
        ]),
        qkv @ (Qkv::Stacked(name) | Qkv::Grouped(name)) => {
            pieces(name, &|part, row| qkv_row(config, qkv, part, row))
        }
    }
}
