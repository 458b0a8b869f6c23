//! Atomic updates of global and shared memory.

use half::{bf16, f16};

use super::Decoder;
use crate::code::{Act, Op};
use crate::fault::PtxError;
use crate::registers::Width;
use crate::types::Type;

/// New value from the old one, the operand, and for `cas` the new one.
type Update = fn(u64, u64, u64) -> u64;

fn halves(old: u64, operand: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
    let low = f(old as u16, operand as u16);
    let high = f((old >> 16) as u16, (operand >> 16) as u16);
    u64::from(high) << 16 | u64::from(low)
}

fn float(name: &str, ty: Type) -> Option<Update> {
    Some(match (name, ty) {
        ("add", Type::F32) => |old, by, _| {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(by as u32)).to_bits())
        },
        ("add", Type::F64) => |old, by, _| (f64::from_bits(old) + f64::from_bits(by)).to_bits(),
        ("add", Type::F16) => |old, by, _| {
            u64::from((f16::from_bits(old as u16) + f16::from_bits(by as u16)).to_bits())
        },
        ("add", Type::Bf16) => |old, by, _| {
            u64::from((bf16::from_bits(old as u16) + bf16::from_bits(by as u16)).to_bits())
        },
        ("add", Type::F16x2) => |old, by, _| {
            halves(old, by, |a, b| {
                (f16::from_bits(a) + f16::from_bits(b)).to_bits()
            })
        },
        ("add", Type::Bf16x2) => |old, by, _| {
            halves(old, by, |a, b| {
                (bf16::from_bits(a) + bf16::from_bits(b)).to_bits()
            })
        },
        _ => return None,
    })
}

fn integer(name: &str, ty: Type) -> Option<Update> {
    Some(match (name, ty) {
        ("add", _) => |old, by, _| old.wrapping_add(by),
        ("and", _) => |old, by, _| old & by,
        ("or", _) => |old, by, _| old | by,
        ("xor", _) => |old, by, _| old ^ by,
        ("exch", _) => |_, by, _| by,
        ("cas", _) => |old, by, new| if old == by { new } else { old },
        ("inc", Type::U32) => |old, by, _| if old >= by { 0 } else { old + 1 },
        ("dec", Type::U32) => |old, by, _| if old == 0 || old > by { by } else { old - 1 },
        ("min", Type::U32 | Type::U64) => |old, by, _| old.min(by),
        ("max", Type::U32 | Type::U64) => |old, by, _| old.max(by),
        ("min", Type::S32) => |old, by, _| (old as i32).min(by as i32) as u64,
        ("max", Type::S32) => |old, by, _| (old as i32).max(by as i32) as u64,
        ("min", Type::S64) => |old, by, _| (old as i64).min(by as i64) as u64,
        ("max", Type::S64) => |old, by, _| (old as i64).max(by as i64) as u64,
        _ => return None,
    })
}

const MODIFIERS: [&str; 23] = [
    "global",
    "shared",
    "shared::cta",
    "shared::cluster",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "cta",
    "gpu",
    "sys",
    "cluster",
    "noftz",
    "add",
    "and",
    "or",
    "xor",
    "exch",
    "cas",
    "min",
    "max",
    "inc",
    "dec",
];

impl Decoder<'_> {
    pub(super) fn atomic(&mut self) -> Result<Op, PtxError> {
        self.only(&MODIFIERS)?;
        let ty = self.ty()?;
        let names = &MODIFIERS[13..];
        let name = self.parts[1..].iter().find(|part| names.contains(part));
        let name = *name.ok_or_else(|| self.unsupported("that operation"))?;
        let is_float = ty.is_float() || matches!(ty, Type::F16x2 | Type::Bf16x2);
        let update = if is_float {
            float(name, ty)
        } else {
            integer(name, ty)
        };
        let update = update.ok_or_else(|| self.unsupported("that type"))?;
        let space = self.memory_space();
        let returns = self.parts[0] == "atom";
        let first = usize::from(returns);
        let width = Self::width_of(ty);
        let address = self.address(first)?;
        let target = match returns {
            true => {
                let operand = self.operand(0)?.clone();
                Some((width, self.write(&operand, width)?))
            }
            false => None,
        };
        let operand = self.operand(first + 1)?.clone();
        let by = (width, self.read(&operand, width)?);
        let new = match name {
            "cas" => {
                let operand = self.operand(first + 2)?.clone();
                Some((width, self.read(&operand, width)?))
            }
            _ => None,
        };
        let bytes = ty.bytes();
        let act: Act = Box::new(move |context, mask| {
            let addresses = address.lanes(context.registers);
            let by = context.registers.bits(by);
            let new = new.map_or([0; 32], |new| context.registers.bits(new));
            let keep = u64::MAX >> (64 - 8 * bytes);
            let f = |lane: usize, old: u64| update(old, by[lane] & keep, new[lane] & keep) & keep;
            let old = context.update(space, mask, &addresses, bytes, &f)?;
            if let Some(target) = target {
                context.registers.set_bits(target, mask, &old);
            }
            Ok(())
        });
        debug_assert!(width != Width::Pred);
        Ok(Op::Act(act))
    }
}
