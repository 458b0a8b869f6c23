//! Linear layers and tables.

use super::{Backend, Device, at, at_mut, first, first_mut};
use crate::cuda::{DevicePtr, OutAt};
use crate::{Buffer, Linear, LinearCall, LinearDelta, RowGroups, cpu};

impl Device {
    /// `out[i] = table[tokens[i]]`, `out`: `[tokens.len(), table.n_in()]`.
    pub fn embed_into(&self, table: &Linear, tokens: &[u32], out: &mut Buffer) {
        let n_out = table.n_out();
        assert!(
            tokens.iter().all(|&token| (token as usize) < n_out),
            "a token is not in the table of {n_out} rows"
        );
        let len = tokens.len() * table.n_in();
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let out = first_mut(out, len, "out");
                cpu::elementwise::embed(cpu, table.packed(), tokens, out);
            }
            Backend::Cuda(gpu) => gpu.embed(table.on_cuda(), tokens, at_mut(out, len, "out")),
        }
    }

    /// The same, where the tokens that `drawn` has a number of are not known yet: they are what
    /// was drawn for that row of [`note_samples`](Self::note_samples) in the step started before,
    /// and their place in `tokens` holds any token. Where nothing was drawn, so does the result.
    ///
    /// # Panics
    /// On a device that does not draw.
    pub fn embed_drawn_into(
        &self,
        table: &Linear,
        tokens: &[u32],
        drawn: &[Option<u32>],
        out: &mut Buffer,
    ) {
        assert_eq!(tokens.len(), drawn.len(), "one answer a token, or none");
        assert!(
            tokens.iter().all(|&token| (token as usize) < table.n_out()),
            "a token is not in the table of {} rows",
            table.n_out()
        );
        let len = tokens.len() * table.n_in();
        match &*self.backend {
            Backend::Cpu(_) => panic!("sampling of a GPU on the CPU"),
            Backend::Cuda(gpu) => {
                gpu.embed_drawn(table.on_cuda(), tokens, drawn, at_mut(out, len, "out"));
            }
        }
    }

    /// Several linear layers of one input in one parallel region: for each call
    /// `out = x W^T + bias`, `x`: `[n_rows, n_in]`, `out`: `[n_rows, n_out]`.
    pub fn linear_into(&self, x: &Buffer, n_rows: usize, calls: &mut [LinearCall<'_>]) {
        self.linear_before(x, n_rows, calls, &[]);
    }

    /// [`Self::linear_into`] and then [`Self::add_deltas`], whose matrices come from memory while
    /// the layers are computed.
    pub fn linear_with_deltas_into(
        &self,
        x: &Buffer,
        groups: &RowGroups,
        deltas: &[Option<&LinearDelta>],
        calls: &mut [LinearCall<'_>],
    ) {
        let used = deltas.iter().enumerate().filter_map(|(group, delta)| {
            let delta = delta.filter(|_| !groups.rows(group).is_empty())?;
            Some(delta.parts.iter().map(|(part, _)| part.host_bytes()))
        });
        let next: Vec<&[u8]> = used.flatten().filter(|bytes| !bytes.is_empty()).collect();
        self.linear_before(x, groups.n_rows(), calls, &next);
        self.add_deltas(x, groups, deltas, calls);
    }

    /// [`Self::linear_into`], after which `next` is read.
    fn linear_before(
        &self,
        x: &Buffer,
        n_rows: usize,
        calls: &mut [LinearCall<'_>],
        next: &[&[u8]],
    ) {
        let Some(n_in) = calls.first().map(|call| call.weight.n_in()) else {
            return;
        };
        for call in calls.iter() {
            assert_eq!(
                call.weight.n_in(),
                n_in,
                "layers of one input differ in n_in"
            );
            let n_out = call.weight.n_out();
            assert!(call.out.len() >= n_rows * n_out, "out is too short");
            assert!(
                call.bias.is_none_or(|bias| bias.len() == n_out),
                "a bias has as many values as the layer has outputs"
            );
        }
        match &*self.backend {
            Backend::Cpu(cpu) => {
                cpu::linear::linear_into(cpu, first(x, n_rows * n_in, "x"), n_rows, calls, next);
            }
            Backend::Cuda(gpu) => {
                let calls = calls.iter().map(|call| {
                    let bias = call.bias.map_or(DevicePtr::NULL, Buffer::device_ptr);
                    (call.weight.on_cuda(), bias, call.out.device_ptr())
                });
                let calls: Vec<_> = calls.collect();
                gpu.linear(at(x, n_rows * n_in, "x"), n_rows, &calls);
            }
        }
    }

    /// What adapters add to linear layers after [`Self::linear_into`] of the same `x` and
    /// `calls`. For each row of each group `g` that has a delta, and each output `i`:
    /// `y = out_i[row]`; `y = y * scale + shift` (each step rounded, each only if it is there)
    /// for the entries of [`LinearDelta::outputs`] of `i`, in order; then for each part in order
    /// and each of its targets of output `i`, `y += column_scale * (B (weight * scales * (A x)))`,
    /// `A`, `B` and `scales` restricted to the ranks of the target. Other rows stay as they are.
    pub fn add_deltas(
        &self,
        x: &Buffer,
        groups: &RowGroups,
        deltas: &[Option<&LinearDelta>],
        calls: &mut [LinearCall<'_>],
    ) {
        let Some(n_in) = calls.first().map(|call| call.weight.n_in()) else {
            return;
        };
        assert_eq!(deltas.len(), groups.n_groups(), "a place for each group");
        for call in calls.iter() {
            assert_eq!(
                call.weight.n_in(),
                n_in,
                "layers of one input differ in n_in"
            );
            let len = groups.n_rows() * call.weight.n_out();
            assert!(call.out.len() >= len, "out is too short");
        }
        let has = |output: usize, n_out: usize| {
            calls
                .get(output)
                .is_some_and(|call| call.weight.n_out() == n_out)
        };
        for delta in deltas.iter().flatten() {
            for (part, _) in &delta.parts {
                assert_eq!(part.n_in(), n_in, "a part takes another input");
                assert!(
                    part.outputs().all(|(output, n_out)| has(output, n_out)),
                    "no such output"
                );
            }
            for output in &delta.outputs {
                let buffers = [&output.scale, &output.shift];
                let mut buffers = buffers.into_iter().flatten();
                assert!(
                    buffers.all(|buffer| has(output.output, buffer.len())),
                    "no such output"
                );
            }
        }
        let len = groups.n_rows() * n_in;
        match &*self.backend {
            Backend::Cpu(cpu) => {
                cpu::low_rank::add_deltas(cpu, first(x, len, "x"), groups, deltas, calls);
            }
            Backend::Cuda(gpu) => {
                let outs = calls.iter().map(|call| OutAt {
                    at: call.out.device_ptr(),
                    n_out: call.weight.n_out(),
                });
                let outs: Vec<OutAt> = outs.collect();
                gpu.add_deltas((at(x, len, "x"), n_in), groups, deltas, &outs);
            }
        }
    }
}
