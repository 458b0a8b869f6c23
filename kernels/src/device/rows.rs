//! Rows by index, and experts.

use super::{Backend, Device, at, at_mut, first, first_mut};
use crate::cuda::DevicePtr;
use crate::{Buffer, Routes, Routing, cpu};

impl Device {
    /// `out[i] = x[rows[i]]`, rows of `width` values.
    pub fn gather_rows_into(&self, x: &Buffer, width: usize, rows: &[u32], out: &mut Buffer) {
        assert!(
            rows.iter()
                .all(|&row| (row as usize + 1) * width <= x.len()),
            "a row is not in x"
        );
        let len = rows.len() * width;
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let out = first_mut(out, len, "out");
                cpu::elementwise::gather_rows(cpu, x.as_slice(), width, rows, out);
            }
            Backend::Cuda(gpu) => {
                gpu.gather_rows(x.device_ptr(), width, rows, at_mut(out, len, "out"));
            }
        }
    }

    /// `out[rows[i]] = x[i]`, rows of `width` values, ascending.
    pub fn scatter_rows(&self, x: &Buffer, width: usize, rows: &[u32], out: &mut Buffer) {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows ascend");
        let ends = rows.last().map_or(0, |&row| row as usize + 1);
        let (len, out_len) = (rows.len() * width, ends * width);
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let (x, out) = (first(x, len, "x"), first_mut(out, out_len, "out"));
                cpu::elementwise::scatter_rows(cpu, x, width, rows, out);
            }
            Backend::Cuda(gpu) => {
                let (x, out) = (at(x, len, "x"), at_mut(out, out_len, "out"));
                gpu.scatter_rows(x, width, rows, out);
            }
        }
    }

    /// `out[rows[i].0] += rows[i].1 * x[i]`, rows of `width` values.
    ///
    /// # Panics
    /// When rows do not ascend.
    pub fn scatter_add_rows(
        &self,
        x: &Buffer,
        width: usize,
        rows: &[(u32, f32)],
        out: &mut Buffer,
    ) {
        assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "rows ascend");
        let n_rows = rows.last().map_or(0, |(row, _)| *row as usize + 1);
        let (len, out_len) = (rows.len() * width, n_rows * width);
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let (x, out) = (first(x, len, "x"), first_mut(out, out_len, "out"));
                cpu::experts::scatter_add(cpu, x, width, rows, out);
            }
            Backend::Cuda(gpu) => {
                let (x, out) = (at(x, len, "x"), at_mut(out, out_len, "out"));
                gpu.scatter_add_rows(x, width, rows, out);
            }
        }
    }

    /// `out[row] += sigmoid(gate[row]) * x[row]`; `gate`: `[n_rows]`, rows of `width` values.
    pub fn add_gated_rows(
        &self,
        x: &Buffer,
        gate: &Buffer,
        width: usize,
        n_rows: usize,
        out: &mut Buffer,
    ) {
        let len = n_rows * width;
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let (x, gate) = (first(x, len, "x"), first(gate, n_rows, "gate"));
                cpu::elementwise::add_gated_rows(cpu, x, gate, first_mut(out, len, "out"));
            }
            Backend::Cuda(gpu) => {
                let (x, gate) = (at(x, len, "x"), at(gate, n_rows, "gate"));
                gpu.add_gated_rows(x, gate, width, n_rows, at_mut(out, len, "out"));
            }
        }
    }

    /// Chooses experts for each row. `logits`: `[n_rows, n_experts]`; `bias`: `[n_experts]`,
    /// added to the scores for the choice, not for the weights.
    pub fn route_into(
        &self,
        logits: &Buffer,
        bias: Option<&Buffer>,
        n_rows: usize,
        routing: &Routing,
        routes: &mut Routes,
    ) {
        let n_experts = routing.n_experts;
        assert!(
            (1..=n_experts).contains(&routing.n_used),
            "no such number of experts"
        );
        if let Some(groups) = routing.groups {
            assert!(
                n_experts.is_multiple_of(groups.n_groups),
                "groups are equal"
            );
            let n_allowed = n_experts / groups.n_groups * groups.n_used;
            assert!(
                (routing.n_used..=n_experts).contains(&n_allowed),
                "too few groups"
            );
        }
        let len = n_rows * n_experts;
        match &*self.backend {
            Backend::Cpu(_) => {
                let bias = bias.map(|bias| first(bias, n_experts, "bias"));
                cpu::experts::route(first(logits, len, "logits"), bias, routing, routes);
            }
            Backend::Cuda(gpu) => {
                let bias = bias.map_or(DevicePtr::NULL, |bias| at(bias, n_experts, "bias"));
                gpu.route(at(logits, len, "logits"), bias, n_rows, routing, routes);
            }
        }
    }
}
