//! Vectors of the fake: as exact as real ones must be about which positions go into them.

use scheduler::{BatchRow, Pooling, TokenId};

use crate::rng::mix;

/// A row is asked for states that it has, of a prompt that is its own.
pub(crate) fn assert_spec(row: &BatchRow) {
    let Some(spec) = &row.pooling else {
        return;
    };
    let id = row.sequence;
    let (start, first) = (row.start as usize, spec.first as usize);
    let end = start + row.tokens.len();
    assert!(first < row.tokens.len(), "{id}: nothing to pool");
    assert!(
        spec.prompt.get(start..end) == Some(&row.tokens),
        "{id}: it pools another prompt"
    );
    let is_first = start + first == 0;
    match spec.pooling {
        Pooling::Mean => assert!(
            is_first == spec.sum.is_empty(),
            "{id}: a sum of {} values before position {}",
            spec.sum.len(),
            start + first
        ),
        Pooling::Last | Pooling::Encoded => assert!(
            end == spec.prompt.len() && first + 1 == row.tokens.len() && spec.sum.is_empty(),
            "{id}: its vector is asked for before its end"
        ),
    }
}

/// What the states of a row make of its prompt's vector.
pub(crate) fn pooled(row: &BatchRow, states: &[u64]) -> Option<Vec<f64>> {
    let spec = row.pooling.as_ref()?;
    let last = states[states.len() - 1];
    Some(match spec.pooling {
        Pooling::Last => number(last).to_vec(),
        Pooling::Encoded => number(encoded(&spec.prompt)).to_vec(),
        Pooling::Mean => {
            let mut sum = vec![0.0; 2];
            sum[..spec.sum.len()].copy_from_slice(&spec.sum);
            for &state in &states[spec.first as usize..] {
                let [high, low] = number(state);
                sum[0] += high;
                sum[1] += low;
            }
            sum
        }
    })
}

/// Two halves, so that sums are exact.
fn number(state: u64) -> [f64; 2] {
    [(state >> 32) as f64, (state & 0xffff_ffff) as f64]
}

fn encoded(prompt: &[TokenId]) -> u64 {
    prompt
        .iter()
        .fold(0, |hash: u64, &token| mix(hash ^ u64::from(token)))
}
