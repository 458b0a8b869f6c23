//! Statements become closures over register slots: everything that can be decided once is
//! decided here, and what is not known is refused by name.

mod atomic;
mod bits;
mod compare;
mod control;
mod convert;
mod copy;
mod float;
mod half_float;
mod integer;
mod layout;
mod map;
mod matrix;
mod mbarrier;
mod memory;
mod moves;
mod tensor;
mod warp;
mod wgmma;

use std::collections::{HashMap, HashSet};

pub(crate) use layout::{Layout, Special};
pub(crate) use memory::Address;

use crate::code::{Instruction, Op};
use crate::fault::{PtxError, Space};
use crate::registers::{Lane, Slot, Width};
use crate::text::{Body, Operand, Statement};
use crate::types::Type;

/// Addresses of variables and parameters, in their own space.
pub(crate) type Symbols = HashMap<String, (Space, u64)>;

/// Decodes one kernel, statement by statement.
pub(crate) struct Decoder<'a> {
    body: &'a Body,
    symbols: &'a Symbols,
    statement: &'a Statement,
    parts: Vec<&'a str>,
    layout: Layout,
    /// Word registers that the statement names.
    named: Vec<Slot>,
    /// Registers of products of warp groups.
    tensor: HashSet<Slot>,
}

/// Instructions and the layout of their registers.
pub(crate) fn decode(
    body: &Body,
    symbols: &Symbols,
) -> Result<(Vec<Instruction>, Layout), PtxError> {
    let Some(first) = body.statements.first() else {
        return Ok((Vec::new(), Layout::default()));
    };
    let mut decoder = Decoder {
        body,
        symbols,
        statement: first,
        parts: Vec::new(),
        layout: Layout::default(),
        named: Vec::new(),
        tensor: HashSet::new(),
    };
    let mut code = Vec::with_capacity(body.statements.len());
    for statement in &body.statements {
        decoder.statement = statement;
        decoder.parts = statement.opcode.split('.').collect();
        code.push(decoder.instruction()?);
    }
    for instruction in &mut code {
        let named = std::mem::take(&mut instruction.tensor).into_iter();
        instruction.tensor = named.filter(|slot| decoder.tensor.contains(slot)).collect();
    }
    Ok((code, decoder.layout))
}

impl Decoder<'_> {
    fn instruction(&mut self) -> Result<Instruction, PtxError> {
        let statement = self.statement;
        self.named.clear();
        let op = self.op()?;
        let tensor = match self.parts[0] {
            "wgmma" => Box::default(),
            _ => self.named.as_slice().into(),
        };
        let guard = match &statement.guard {
            Some((name, negated)) => {
                let slot = self.register(name, Width::Pred)?;
                Some((slot, if *negated { u32::MAX } else { 0 }))
            }
            None => None,
        };
        Ok(Instruction {
            op,
            guard,
            tensor,
            line: statement.line,
            source: statement.source,
            text: statement.opcode.clone(),
        })
    }

    fn op(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs"
            | "neg" | "sad" => self.arithmetic(),
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "bfe" | "bfi" | "prmt"
            | "lop3" | "shf" | "popc" | "clz" | "brev" | "bfind" | "dp4a" => self.bits(),
            "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "ex2" | "lg2" | "tanh" | "copysign"
            | "testp" => self.special_function(),
            "setp" | "set" | "selp" | "slct" => self.compare(),
            "cvt" => self.convert(),
            "mov" | "cvta" | "isspacep" | "mapa" => self.moves(),
            "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                self.memory()
            }
            "atom" | "red" => self.atomic(),
            "shfl" | "vote" | "match" | "activemask" | "redux" | "elect" => self.warp(),
            "ldmatrix" | "stmatrix" | "mma" | "movmatrix" => self.matrix(),
            "cp" => self.copy(),
            "mbarrier" => self.mbarrier(),
            "wgmma" => self.wgmma(),
            "bra" | "brx" | "ret" | "exit" | "bar" | "barrier" | "membar" | "fence" | "trap"
            | "brkpt" | "nanosleep" | "griddepcontrol" | "setmaxnreg" | "pmevent" => self.control(),
            _ => Err(self.unsupported("instruction")),
        }
    }

    /// Integer or float, by the type.
    fn arithmetic(&mut self) -> Result<Op, PtxError> {
        match self.ty()? {
            Type::F32 | Type::F64 => self.float(),
            Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => self.half_float(),
            _ => self.integer(),
        }
    }

    // What the opcode says.

    fn has(&self, modifier: &str) -> bool {
        self.parts[1..].contains(&modifier)
    }

    /// The types named, in order.
    fn types(&self) -> Vec<Type> {
        let parts = self.parts[1..].iter();
        parts.filter_map(|part| Type::parse(part)).collect()
    }

    /// The first type named.
    fn ty(&self) -> Result<Type, PtxError> {
        let first = self.types().first().copied();
        first.ok_or_else(|| self.unsupported("no type"))
    }

    /// Refuses any modifier that is neither a type nor in the list.
    fn only(&self, modifiers: &[&str]) -> Result<(), PtxError> {
        let unknown = |part: &&&str| Type::parse(part).is_none() && !modifiers.contains(*part);
        match self.parts[1..].iter().find(unknown) {
            Some(part) => Err(self.unsupported(&format!("modifier `.{part}`"))),
            None => Ok(()),
        }
    }

    fn error(&self, what: impl Into<String>) -> PtxError {
        PtxError::new(self.statement.line, what)
    }

    fn unsupported(&self, what: &str) -> PtxError {
        self.error(format!(
            "`{}`: {what} is not simulated",
            self.statement.opcode
        ))
    }

    // What the operands are.

    fn n_operands(&self) -> usize {
        self.statement.operands.len()
    }

    fn operand(&self, idx: usize) -> Result<&Operand, PtxError> {
        let operand = self.statement.operands.get(idx);
        operand.ok_or_else(|| {
            self.error(format!(
                "`{}`: operand {idx} is missing",
                self.statement.opcode
            ))
        })
    }

    /// The declared type of a register.
    fn declared(&self, name: &str) -> Option<Type> {
        if let Some((ty, None)) = self.body.registers.get(name) {
            return Some(*ty);
        }
        // `%r7@3` is register 7 of `%r<n>` in an inner scope; that is renamed as a whole.
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: u32 = name[stem.len()..].parse().ok()?;
        match self.body.registers.get(stem) {
            Some((ty, Some(n))) if number < *n => Some(*ty),
            _ => None,
        }
    }

    fn width_of(ty: Type) -> Width {
        match ty {
            Type::Pred => Width::Pred,
            ty if ty.bytes() == 8 => Width::Long,
            _ => Width::Word,
        }
    }

    fn register(&mut self, name: &str, width: Width) -> Result<Slot, PtxError> {
        let Some(ty) = self.declared(name) else {
            return Err(self.error(format!("`{name}` is not declared")));
        };
        if Self::width_of(ty) != width || ty == Type::B128 {
            let what = format!("`{}`: register {name} is .{ty}", self.statement.opcode);
            return Err(self.error(what));
        }
        let slot = self.layout.register(name, width);
        if width == Width::Word {
            self.named.push(slot);
        }
        Ok(slot)
    }

    /// The width of the register an operand names; none if it is none.
    fn register_width(&self, operand: &Operand) -> Option<Width> {
        match operand {
            Operand::Name(name) => self.declared(name).map(Self::width_of),
            _ => None,
        }
    }

    /// The slot an operand is read from.
    fn read(&mut self, operand: &Operand, width: Width) -> Result<Slot, PtxError> {
        match operand {
            Operand::Int(bits) => Ok(self.layout.constant(width, *bits)),
            Operand::F32(bits) => Ok(self.layout.constant(width, u64::from(*bits))),
            Operand::F64(bits) => Ok(self.layout.constant(width, *bits)),
            Operand::Name(name) => {
                if self.declared(name).is_some() {
                    return self.register(name, width);
                }
                if let Some(special) = Special::parse(name) {
                    return Ok(self.layout.special(special));
                }
                if name == "WARP_SZ" {
                    return Ok(self.layout.constant(width, 32));
                }
                match self.symbols.get(name) {
                    Some((_, address)) => Ok(self.layout.constant(width, *address)),
                    None => Err(self.error(format!("`{name}` is not known"))),
                }
            }
            other => Err(self.error(format!("{other:?} cannot be read here"))),
        }
    }

    /// The slot an operand is written to.
    fn write(&mut self, operand: &Operand, width: Width) -> Result<Slot, PtxError> {
        match operand {
            Operand::Name(name) => self.register(name, width),
            Operand::Sink => Ok(self.layout.sink(width)),
            other => Err(self.error(format!("{other:?} cannot be written"))),
        }
    }

    fn source<T: Lane>(&mut self, idx: usize) -> Result<Slot, PtxError> {
        let operand = self.operand(idx)?.clone();
        self.read(&operand, T::WIDTH)
    }

    fn target<T: Lane>(&mut self, idx: usize) -> Result<Slot, PtxError> {
        let operand = self.operand(idx)?.clone();
        self.write(&operand, T::WIDTH)
    }

    /// A predicate operand, which may be negated: its slot, and what to exclusive-or with.
    fn predicate(&mut self, idx: usize) -> Result<(Slot, u32), PtxError> {
        match self.operand(idx)?.clone() {
            Operand::Not(name) => Ok((self.register(&name, Width::Pred)?, u32::MAX)),
            operand => Ok((self.read(&operand, Width::Pred)?, 0)),
        }
    }

    /// The parts of a vector operand, or the operand itself.
    fn elements(&self, idx: usize) -> Result<Vec<Operand>, PtxError> {
        Ok(match self.operand(idx)? {
            Operand::Vector(list) => list.clone(),
            one => vec![one.clone()],
        })
    }

    /// Slots of a vector operand's words, to read.
    fn source_words(&mut self, idx: usize) -> Result<Vec<Slot>, PtxError> {
        let list = self.elements(idx)?;
        list.iter().map(|one| self.read(one, Width::Word)).collect()
    }

    /// Slots of a vector operand's words, to write.
    fn target_words(&mut self, idx: usize) -> Result<Vec<Slot>, PtxError> {
        let list = self.elements(idx)?;
        list.iter()
            .map(|one| self.write(one, Width::Word))
            .collect()
    }

    /// The integer that an operand is.
    fn integer_constant(&self, idx: usize) -> Result<u64, PtxError> {
        match self.operand(idx)? {
            Operand::Int(value) => Ok(*value),
            other => Err(self.error(format!("{other:?} must be a constant"))),
        }
    }
}
