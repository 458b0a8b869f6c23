//! Reference of causal attention, on keys and values that lie in plain order.

/// Shapes of [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Multiplies `q . k` before the softmax.
    pub scale: f32,
}

/// What else decides how a query weighs positions.
#[derive(Clone, Debug, Default)]
pub struct Scoring {
    pub window: Option<usize>,
    pub softcap: Option<f32>,
    pub alibi_slopes: Option<Vec<f32>>,
    pub sinks: Option<Vec<f32>>,
}

/// Causal attention of one sequence. `q`: `[n_rows, n_heads, head_dim]`, the last rows of the
/// context; `k`, `v`: `[n_positions, n_kv_heads, head_dim]`, all of it.
pub fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: AttentionShape,
    scoring: &Scoring,
) -> Vec<f64> {
    let AttentionShape {
        n_heads,
        n_kv_heads,
        head_dim,
        scale,
    } = shape;
    let n_rows = q.len() / (n_heads * head_dim);
    let n_positions = k.len() / (n_kv_heads * head_dim);
    let mut out = Vec::with_capacity(q.len());
    for (i, q) in q.chunks_exact(head_dim).enumerate() {
        let kv_head = i % n_heads / (n_heads / n_kv_heads);
        let n_visible = n_positions - n_rows + i / n_heads + 1;
        let at = |position: usize| (position * n_kv_heads + kv_head) * head_dim;
        let head = i % n_heads;
        let first = n_visible.saturating_sub(scoring.window.unwrap_or(usize::MAX));
        let scores: Vec<f64> = (first..n_visible)
            .map(|position| {
                let mut score = dot(q, &k[at(position)..][..head_dim]) * f64::from(scale);
                if let Some(cap) = scoring.softcap.map(f64::from) {
                    score = cap * (score / cap).tanh();
                }
                if let Some(slopes) = &scoring.alibi_slopes {
                    score -= f64::from(slopes[head]) * (n_visible - 1 - position) as f64;
                }
                score
            })
            .collect();
        let sink = scoring.sinks.as_ref().map(|sinks| f64::from(sinks[head]));
        let max = scores
            .iter()
            .copied()
            .chain(sink)
            .fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - max).exp());
        for d in 0..head_dim {
            let weighted = weights.iter().enumerate();
            let total: f64 = weighted
                .map(|(j, weight)| weight * f64::from(v[at(first + j) + d]))
                .sum();
            out.push(total / sum);
        }
    }
    out
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b);
    products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
