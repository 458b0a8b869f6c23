//! Moves, packing, and addresses between spaces.

use super::Decoder;
use crate::address;
use crate::code::{Alu, Op};
use crate::fault::{PtxError, Space};
use crate::registers::{Lane, Width};
use crate::text::Operand;
use crate::types::Type;

impl Decoder<'_> {
    pub(super) fn moves(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "mov" => self.mov(),
            "cvta" => self.convert_address(),
            "isspacep" => {
                let space = self.space()?;
                self.map1(move |a: u64| address::space(a) == space)
            }
            // A cluster has one block, whose shared memory is its own.
            _ => match self.ty()?.bytes() {
                8 => self.map2(|a: u64, _: u32| a),
                _ => self.map2(|a: u32, _: u32| a),
            },
        }
    }

    /// The space named in the opcode.
    fn space(&self) -> Result<Space, PtxError> {
        let known = |part: &&str| match *part {
            "shared" | "shared::cta" | "shared::cluster" => Some(Space::Shared),
            "global" => Some(Space::Global),
            "local" => Some(Space::Local),
            "const" => Some(Space::Module),
            "param" | "param::entry" => Some(Space::Param),
            _ => None,
        };
        let found = self.parts[1..].iter().find_map(known);
        found.ok_or_else(|| self.unsupported("that space"))
    }

    fn convert_address(&mut self) -> Result<Op, PtxError> {
        let mut space = self.space()?;
        // Variables of the module are one space here, whether `.global` or `.const`.
        if let Operand::Name(name) = self.operand(1)?
            && let Some((of_symbol, _)) = self.symbols.get(name)
        {
            space = *of_symbol;
        }
        let window = address::window(space);
        match (self.has("to"), self.ty()?.bytes()) {
            (false, 8) => self.map1(move |a: u64| address::to_generic(a, window)),
            (true, 8) => self.map1(move |a: u64| address::from_generic(a, window)),
            _ => Err(self.unsupported("32-bit generic addresses")),
        }
    }

    fn mov(&mut self) -> Result<Op, PtxError> {
        let ty = self.ty()?;
        if let Operand::Vector(parts) = self.operand(1)?.clone() {
            return self.pack(&parts);
        }
        if let Operand::Vector(parts) = self.operand(0)?.clone() {
            return self.unpack(&parts);
        }
        if ty == Type::B128 {
            return Err(self.unsupported("that type"));
        }
        match Self::width_of(ty) {
            Width::Pred => self.map1(|a: bool| a),
            Width::Word => self.map1(|a: u32| a),
            Width::Long => {
                let operand = self.operand(1)?.clone();
                // `.global` variables are addressed through the module's window at once.
                if let Operand::Name(name) = &operand
                    && let Some((Space::Module, at)) = self.symbols.get(name)
                {
                    let at = address::to_generic(*at, address::window(Space::Module));
                    let d = self.target::<u64>(0)?;
                    let alu: Alu =
                        Box::new(move |registers, mask| u64::write(registers, d, mask, &[at; 32]));
                    return Ok(Op::Alu(alu));
                }
                self.map1(|a: u64| a)
            }
        }
    }

    /// `mov.b64 d, {a, b}`: the first is the lowest.
    fn pack(&mut self, parts: &[Operand]) -> Result<Op, PtxError> {
        let ty = self.ty()?;
        let bits = 8 * ty.bytes() / parts.len();
        let width = if bits == 64 { Width::Long } else { Width::Word };
        let d = (
            Self::width_of(ty),
            self.write(&self.operand(0)?.clone(), Self::width_of(ty))?,
        );
        let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.read(part, width)).collect();
        let parts = parts?;
        let alu: Alu = Box::new(move |registers, mask| {
            let mut out = [0u64; 32];
            for (at, part) in parts.iter().enumerate() {
                let part = registers.bits((width, *part));
                for lane in 0..32 {
                    let value = part[lane] & (u64::MAX >> (64 - bits));
                    out[lane] |= value << (at * bits);
                }
            }
            registers.set_bits(d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }

    fn unpack(&mut self, parts: &[Operand]) -> Result<Op, PtxError> {
        let ty = self.ty()?;
        let bits = 8 * ty.bytes() / parts.len();
        let width = if bits == 64 { Width::Long } else { Width::Word };
        let source = self.operand(1)?.clone();
        let a = (Self::width_of(ty), self.read(&source, Self::width_of(ty))?);
        let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.write(part, width)).collect();
        let parts = parts?;
        let alu: Alu = Box::new(move |registers, mask| {
            let value = registers.bits(a);
            for (at, part) in parts.iter().enumerate() {
                let out = value.map(|value| value >> (at * bits) & (u64::MAX >> (64 - bits)));
                registers.set_bits((width, *part), mask, &out);
            }
        });
        Ok(Op::Alu(alu))
    }
}
