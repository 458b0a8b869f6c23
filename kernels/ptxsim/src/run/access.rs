//! Loads and stores of a warp, in every space.

use super::context::{Context, Shape};
use super::shared::Write;
use super::traffic;
use crate::address;
use crate::fault::{FaultKind, LaneFault, Space};
use crate::registers::lanes;

/// Values of up to four elements for each lane.
pub(crate) type Values = [[u64; 32]; 4];

/// Writes a lane's values to `bytes`.
fn take(bytes: &mut [u8], shape: Shape, lane: usize, values: &Values) {
    for (bytes, values) in bytes.chunks_exact_mut(shape.bytes).zip(values) {
        put_value(bytes, values[lane]);
    }
}

/// Hands the values in `bytes` to a lane.
fn put(bytes: &[u8], shape: Shape, lane: usize, out: &mut Values) {
    for (bytes, out) in bytes.chunks_exact(shape.bytes).zip(out.iter_mut()) {
        out[lane] = value(bytes);
    }
}

/// Of 1, 2, 4 or 8 bytes: a length that the compiler knows is an access, one that it does not
/// know is a call.
fn value(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("elements have 1, 2, 4 or 8 bytes"),
    }
}

/// The lowest bytes of a value.
fn put_value(bytes: &mut [u8], value: u64) {
    match bytes {
        [a] => *a = value as u8,
        [_, _] => bytes.copy_from_slice(&(value as u16).to_le_bytes()),
        [_, _, _, _] => bytes.copy_from_slice(&(value as u32).to_le_bytes()),
        _ => bytes.copy_from_slice(&value.to_le_bytes()),
    }
}

/// Reads a window of constant bytes.
fn constant(from: &[u8], space: Space, address: u64, shape: Shape) -> Result<&[u8], FaultKind> {
    let (len, at) = (shape.total(), address as usize);
    if at % len != 0 {
        return Err(FaultKind::Misaligned {
            space,
            address,
            len,
        });
    }
    let found = at.checked_add(len).and_then(|end| from.get(at..end));
    found.ok_or_else(|| FaultKind::OutOfBounds {
        space,
        address,
        len,
        near: format!("{} bytes", from.len()),
    })
}

impl Context<'_> {
    /// Splits lanes by the space their generic addresses lie in.
    fn by_space(
        &mut self,
        mut mask: u32,
        addresses: &[u64; 32],
        mut f: impl FnMut(&mut Self, Space, u32, &[u64; 32]) -> Result<(), LaneFault>,
    ) -> Result<(), LaneFault> {
        let own = addresses.map(address::offset);
        while mask != 0 {
            let space = address::space(addresses[mask.trailing_zeros() as usize]);
            let same = lanes(mask).filter(|lane| address::space(addresses[*lane]) == space);
            let group = same.fold(0u32, |group, lane| group | 1 << lane);
            f(self, space, group, &own)?;
            mask &= !group;
        }
        Ok(())
    }

    /// Loads; with no space the addresses are generic.
    #[inline]
    pub(crate) fn load(
        &mut self,
        space: Option<Space>,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        out: &mut Values,
    ) -> Result<(), LaneFault> {
        match space {
            Some(Space::Shared) => self.load_shared(mask, addresses, shape, out),
            Some(Space::Local) => self.load_local(mask, addresses, shape, out),
            Some(Space::Param) => {
                let params = self.params;
                self.load_constant(params, Space::Param, mask, addresses, shape, out)
            }
            Some(Space::Global)
                if mask != 0
                    && address::space(addresses[mask.trailing_zeros() as usize])
                        == Space::Global =>
            {
                self.load_global(mask, addresses, shape, out)
            }
            _ => self.by_space(
                mask,
                addresses,
                |context, space, mask, addresses| match space {
                    Space::Module => {
                        let module = context.module;
                        context.load_constant(module, space, mask, addresses, shape, out)
                    }
                    Space::Global => context.load_global(mask, addresses, shape, out),
                    space => context.load(Some(space), mask, addresses, shape, out),
                },
            ),
        }
    }

    fn load_global(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        out: &mut Values,
    ) -> Result<(), LaneFault> {
        let total = shape.total();
        for lane in lanes(mask) {
            let address = addresses[lane];
            let span = self.memory.span(address, total, total);
            let span = span.map_err(|kind| kind.at(lane))?;
            for (element, out) in out[..shape.n].iter_mut().enumerate() {
                let at = element * shape.bytes;
                out[lane] = match span.load(at, shape.bytes) {
                    Some(value) => value,
                    None if !self.strict_global => u64::MAX >> (64 - 8 * shape.bytes),
                    None => {
                        return Err(FaultKind::Uninitialised {
                            space: Space::Global,
                            address: address + at as u64,
                            len: shape.bytes,
                        }
                        .at(lane));
                    }
                };
            }
        }
        traffic::global(self.counters, mask, addresses, total);
        Ok(())
    }

    fn load_shared(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        out: &mut Values,
    ) -> Result<(), LaneFault> {
        let total = shape.total();
        for lane in lanes(mask) {
            let actor = self.actor(lane);
            let bytes = self.shared.read(actor, addresses[lane], total, total);
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            put(bytes, shape, lane, out);
        }
        traffic::shared(self.counters, mask, addresses, total);
        Ok(())
    }

    fn load_local(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        out: &mut Values,
    ) -> Result<(), LaneFault> {
        for lane in lanes(mask) {
            let bytes = self
                .local
                .read(lane, addresses[lane], shape.total(), shape.total());
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            put(bytes, shape, lane, out);
        }
        Ok(())
    }

    fn load_constant(
        &mut self,
        from: &[u8],
        space: Space,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        out: &mut Values,
    ) -> Result<(), LaneFault> {
        for lane in lanes(mask) {
            let bytes = constant(from, space, addresses[lane], shape);
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            put(bytes, shape, lane, out);
        }
        Ok(())
    }

    /// Stores; with no space the addresses are generic.
    pub(crate) fn store(
        &mut self,
        space: Option<Space>,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        values: &Values,
    ) -> Result<(), LaneFault> {
        match space {
            Some(Space::Global) => self.store_global(mask, addresses, shape, values),
            Some(Space::Shared) => self.store_shared(mask, addresses, shape, values),
            Some(Space::Local) => self.store_local(mask, addresses, shape, values),
            Some(space) => {
                let lane = mask.trailing_zeros() as usize % 32;
                let address = addresses[lane];
                Err(FaultKind::ReadOnly { space, address }.at(lane))
            }
            None => self.by_space(mask, addresses, |context, space, mask, addresses| {
                context.store(Some(space), mask, addresses, shape, values)
            }),
        }
    }

    fn store_global(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        values: &Values,
    ) -> Result<(), LaneFault> {
        let total = shape.total();
        for lane in lanes(mask) {
            let span = self.memory.span(addresses[lane], total, total);
            let span = span.map_err(|kind| kind.at(lane))?;
            for (element, values) in values[..shape.n].iter().enumerate() {
                span.store(element * shape.bytes, shape.bytes, values[lane]);
            }
            self.note_global_write(lane, addresses[lane], total);
        }
        traffic::global(self.counters, mask, addresses, total);
        Ok(())
    }

    fn store_shared(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        values: &Values,
    ) -> Result<(), LaneFault> {
        let total = shape.total();
        for lane in lanes(mask) {
            let actor = self.actor(lane);
            let bytes = self
                .shared
                .write(actor, addresses[lane], total, total, Write::Plain);
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            take(bytes, shape, lane, values);
        }
        traffic::shared(self.counters, mask, addresses, total);
        Ok(())
    }

    fn store_local(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        shape: Shape,
        values: &Values,
    ) -> Result<(), LaneFault> {
        for lane in lanes(mask) {
            let total = shape.total();
            let bytes = self.local.write(lane, addresses[lane], total, total);
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            take(bytes, shape, lane, values);
        }
        Ok(())
    }

    /// Replaces the value at each lane's address, one lane after the other, by `f` of lane and
    /// value; returns the old ones.
    pub(crate) fn update(
        &mut self,
        space: Option<Space>,
        mask: u32,
        addresses: &[u64; 32],
        bytes: usize,
        f: &dyn Fn(usize, u64) -> u64,
    ) -> Result<[u64; 32], LaneFault> {
        let mut old = [0; 32];
        self.counters.atomics += 1;
        for lane in lanes(mask) {
            let address = addresses[lane];
            let space = space.unwrap_or_else(|| address::space(address));
            let address = address::offset(address);
            let before = match space {
                Space::Global => {
                    self.note_global_write(lane, address, bytes);
                    self.update_global(address, bytes, |old| f(lane, old))
                }
                Space::Shared => self.update_shared(lane, address, bytes, |old| f(lane, old)),
                space => Err(FaultKind::Unsupported {
                    what: format!("atomic on {space} memory"),
                }),
            };
            old[lane] = before.map_err(|kind| kind.at(lane))?;
        }
        Ok(old)
    }

    fn update_global(
        &mut self,
        address: u64,
        bytes: usize,
        f: impl Fn(u64) -> u64,
    ) -> Result<u64, FaultKind> {
        let span = self.memory.span(address, bytes, bytes)?;
        span.update(bytes, f).ok_or(FaultKind::Uninitialised {
            space: Space::Global,
            address,
            len: bytes,
        })
    }

    fn update_shared(
        &mut self,
        lane: usize,
        address: u64,
        bytes: usize,
        f: impl Fn(u64) -> u64,
    ) -> Result<u64, FaultKind> {
        let actor = self.actor(lane);
        let cell = self.shared.atomic(actor, address, bytes)?;
        let old = value(cell);
        put_value(cell, f(old));
        Ok(old)
    }
}
