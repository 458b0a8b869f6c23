//! The PTX text, cut up: items, headers, variables, statements, operands. Names only; what
//! they mean is the decoder's business.

mod body;
mod header;
mod operand;
mod scanner;
mod variable;

pub(crate) use body::{Body, Source, Statement};
pub(crate) use header::{Param, Unit, parse};
pub(crate) use operand::Operand;
pub(crate) use variable::Variable;
