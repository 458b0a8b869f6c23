//! Exchange between the lanes of a warp.

use super::Decoder;
use crate::code::{Act, Op};
use crate::fault::{FaultKind, LaneFault, PtxError};
use crate::registers::{Lane, Width, lanes};
use crate::text::Operand;
use crate::types::Type;

/// Every lane that is here must name exactly the lanes that are here, apart from such as have
/// exited.
pub(super) fn check_members(masks: &[u32; 32], active: u32, alive: u32) -> Result<(), LaneFault> {
    for lane in lanes(active) {
        let mask = masks[lane];
        if mask & alive != active {
            return Err(FaultKind::MemberMask { mask, active }.at(lane));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Mode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// The lane that `lane` reads from, and whether that lies in its segment.
fn source_lane(mode: Mode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let greatest = lane & segment | clamp & !segment;
    let least = lane & segment;
    match mode {
        Mode::Up => {
            let from = lane.wrapping_sub(b);
            (from, from as i32 >= greatest as i32)
        }
        Mode::Down => (lane + b, lane + b <= greatest),
        Mode::Butterfly => (lane ^ b, lane ^ b <= greatest),
        Mode::Index => {
            let from = least | b & !segment;
            (from, from <= greatest)
        }
    }
}

impl Decoder<'_> {
    pub(super) fn warp(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "shfl" => self.shuffle(),
            "vote" => self.vote(),
            "match" => self.find_equal(),
            "redux" => self.reduce(),
            "activemask" => {
                let d = self.target::<u32>(0)?;
                let act: Act = Box::new(move |context, active| {
                    u32::write(context.registers, d, active, &[active; 32]);
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            _ => self.elect(),
        }
    }

    fn shuffle(&mut self) -> Result<Op, PtxError> {
        self.only(&["sync", "up", "down", "bfly", "idx"])?;
        if !self.has("sync") {
            return Err(self.unsupported("the form without member mask"));
        }
        let mode = match () {
            () if self.has("up") => Mode::Up,
            () if self.has("down") => Mode::Down,
            () if self.has("bfly") => Mode::Butterfly,
            () => Mode::Index,
        };
        let (d, p) = match self.operand(0)?.clone() {
            Operand::Pair(d, p) => (*d, Some(*p)),
            d => (d, None),
        };
        let d = self.write(&d, Width::Word)?;
        let p = match p {
            Some(p) => Some(self.write(&p, Width::Pred)?),
            None => None,
        };
        let (a, b) = (self.source::<u32>(1)?, self.source::<u32>(2)?);
        let (c, members) = (self.source::<u32>(3)?, self.source::<u32>(4)?);
        let act: Act = Box::new(move |context, active| {
            let registers = &mut *context.registers;
            check_members(&u32::read(registers, members), active, context.alive)?;
            let (a, b) = (u32::read(registers, a), u32::read(registers, b));
            let c = u32::read(registers, c);
            let (mut out, mut inside) = ([0; 32], [false; 32]);
            for lane in lanes(active) {
                let (from, ok) = source_lane(mode, lane as u32, b[lane], c[lane]);
                if ok && active >> from & 1 == 0 {
                    let source_lane = from;
                    return Err(FaultKind::ShuffleSource { source_lane }.at(lane));
                }
                out[lane] = a[if ok { from as usize } else { lane }];
                inside[lane] = ok;
            }
            u32::write(registers, d, active, &out);
            if let Some(p) = p {
                bool::write(registers, p, active, &inside);
            }
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn vote(&mut self) -> Result<Op, PtxError> {
        self.only(&["sync", "all", "any", "uni", "ballot"])?;
        let ballot = self.has("ballot");
        let width = if ballot { Width::Word } else { Width::Pred };
        let target = self.operand(0)?.clone();
        let d = (width, self.write(&target, width)?);
        let (p, flip) = self.predicate(1)?;
        let members = self.source::<u32>(2)?;
        let (all, any) = (self.has("all"), self.has("any"));
        let act: Act = Box::new(move |context, active| {
            let registers = &mut *context.registers;
            check_members(&u32::read(registers, members), active, context.alive)?;
            let held = (registers.preds[p.0 as usize] ^ flip) & active;
            let result = match () {
                () if ballot => held,
                () if all => u32::from(held == active),
                () if any => u32::from(held != 0),
                () => u32::from(held == active || held == 0),
            };
            registers.set_bits(d, active, &[u64::from(result); 32]);
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn find_equal(&mut self) -> Result<Op, PtxError> {
        self.only(&["sync", "any", "all"])?;
        let width = Self::width_of(self.ty()?);
        let source = self.operand(1)?.clone();
        let a = (width, self.read(&source, width)?);
        let members = self.source::<u32>(2)?;
        let (d, p) = match self.operand(0)?.clone() {
            Operand::Pair(d, p) => (*d, Some(*p)),
            d => (d, None),
        };
        let d = self.write(&d, Width::Word)?;
        let p = match p {
            Some(p) => Some(self.write(&p, Width::Pred)?),
            None => None,
        };
        let any = self.has("any");
        let act: Act = Box::new(move |context, active| {
            let registers = &mut *context.registers;
            check_members(&u32::read(registers, members), active, context.alive)?;
            let a = registers.bits(a);
            let equal = |lane: usize| {
                let same = lanes(active).filter(|other| a[*other] == a[lane]);
                same.fold(0u32, |mask, other| mask | 1 << other)
            };
            let first = equal(active.trailing_zeros() as usize);
            let all = first == active;
            let out = std::array::from_fn(|lane| match any {
                true => equal(lane),
                false if all => active,
                false => 0,
            });
            u32::write(registers, d, active, &out);
            if let Some(p) = p {
                bool::write(registers, p, active, &[all; 32]);
            }
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn reduce(&mut self) -> Result<Op, PtxError> {
        self.only(&["sync", "add", "min", "max", "and", "or", "xor"])?;
        let f: fn(u32, u32) -> u32 = match (self.parts[2], self.ty()?) {
            ("add", _) => u32::wrapping_add,
            ("and", _) => |a, b| a & b,
            ("or", _) => |a, b| a | b,
            ("xor", _) => |a, b| a ^ b,
            ("min", Type::U32) => u32::min,
            ("max", Type::U32) => u32::max,
            ("min", Type::S32) => |a, b| (a as i32).min(b as i32) as u32,
            ("max", Type::S32) => |a, b| (a as i32).max(b as i32) as u32,
            _ => return Err(self.unsupported("that form")),
        };
        let (d, a) = (self.target::<u32>(0)?, self.source::<u32>(1)?);
        let members = self.source::<u32>(2)?;
        let act: Act = Box::new(move |context, active| {
            let registers = &mut *context.registers;
            check_members(&u32::read(registers, members), active, context.alive)?;
            let a = u32::read(registers, a);
            let result = lanes(active).map(|lane| a[lane]).reduce(f).unwrap_or(0);
            u32::write(registers, d, active, &[result; 32]);
            Ok(())
        });
        Ok(Op::Act(act))
    }

    /// `elect.sync d|p, members`: the first lane leads.
    fn elect(&mut self) -> Result<Op, PtxError> {
        let Operand::Pair(d, p) = self.operand(0)?.clone() else {
            return Err(self.unsupported("that form"));
        };
        let (d, p) = (self.write(&d, Width::Word)?, self.write(&p, Width::Pred)?);
        let members = self.source::<u32>(1)?;
        let act: Act = Box::new(move |context, active| {
            let registers = &mut *context.registers;
            check_members(&u32::read(registers, members), active, context.alive)?;
            let leader = active.trailing_zeros();
            u32::write(registers, d, active, &[leader; 32]);
            let leads = std::array::from_fn(|lane| lane as u32 == leader);
            bool::write(registers, p, active, &leads);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}
