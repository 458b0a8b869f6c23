//! Operands of statements, by name.

use crate::fault::PtxError;

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// Register, special register, variable or label.
    Name(String),
    /// `!p`
    Not(String),
    /// An integer, two's complement.
    Int(u64),
    /// `0f...`: the bits.
    F32(u32),
    /// `0d...`: the bits.
    F64(u64),
    /// `_`
    Sink,
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `p|q`
    Pair(Box<Operand>, Box<Operand>),
    /// `[base+offset]`; with coordinates for tensor copies.
    Address {
        base: Box<Operand>,
        offset: i64,
        coordinates: Vec<Operand>,
    },
}

/// Splits at `separator` outside of braces and brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            c if c == separator && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn integer(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let digits = digits.trim_end_matches('U');
    let value = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()?
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

fn address(inner: &str, line: u32) -> Result<Operand, PtxError> {
    let parts = split(inner, ',');
    let coordinates = match parts.get(1) {
        Some(list) => match Operand::parse(list, line)? {
            Operand::Vector(list) => list,
            other => vec![other],
        },
        None => Vec::new(),
    };
    let place = parts[0];
    let (base, offset) = match place.split_once('+') {
        Some((base, offset)) => (base.trim(), integer(offset.trim())),
        None => (place, Some(0)),
    };
    let offset =
        offset.ok_or_else(|| PtxError::new(line, format!("`{place}` is not an address")))? as i64;
    let base = Box::new(Operand::parse(base, line)?);
    Ok(Operand::Address {
        base,
        offset,
        coordinates,
    })
}

impl Operand {
    /// All operands of a statement.
    pub(super) fn list(text: &str, line: u32) -> Result<Vec<Self>, PtxError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let parts = split(text, ',').into_iter();
        parts.map(|part| Self::parse(part, line)).collect()
    }

    fn parse(text: &str, line: u32) -> Result<Self, PtxError> {
        let text = text.trim();
        let wrong = || PtxError::new(line, format!("`{text}` is not an operand"));
        if let Some(inner) = text.strip_prefix('{') {
            let inner = inner.strip_suffix('}').ok_or_else(wrong)?;
            return Ok(Self::Vector(Self::list(inner, line)?));
        }
        if let Some(inner) = text.strip_prefix('[') {
            return address(inner.strip_suffix(']').ok_or_else(wrong)?, line);
        }
        if let Some((first, second)) = text.split_once('|') {
            let (first, second) = (Self::parse(first, line)?, Self::parse(second, line)?);
            return Ok(Self::Pair(Box::new(first), Box::new(second)));
        }
        if let Some(name) = text.strip_prefix('!') {
            return Ok(Self::Not(name.trim().to_owned()));
        }
        if text == "_" {
            return Ok(Self::Sink);
        }
        let lower = text.to_ascii_lowercase();
        if let Some(hex) = lower.strip_prefix("0f") {
            return Ok(Self::F32(
                u32::from_str_radix(hex, 16).map_err(|_| wrong())?,
            ));
        }
        if let Some(hex) = lower.strip_prefix("0d") {
            return Ok(Self::F64(
                u64::from_str_radix(hex, 16).map_err(|_| wrong())?,
            ));
        }
        let first = text.chars().next().ok_or_else(wrong)?;
        if first.is_ascii_digit() || first == '-' {
            return Ok(Self::Int(integer(text).ok_or_else(wrong)?));
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// Every name in the operand, to rename or to note.
    pub(crate) fn names(&mut self, f: &mut impl FnMut(&mut String)) {
        match self {
            Self::Name(name) | Self::Not(name) => f(name),
            Self::Vector(list) => list.iter_mut().for_each(|operand| operand.names(f)),
            Self::Pair(first, second) => {
                first.names(f);
                second.names(f);
            }
            Self::Address {
                base, coordinates, ..
            } => {
                base.names(f);
                coordinates.iter_mut().for_each(|operand| operand.names(f));
            }
            Self::Int(_) | Self::F32(_) | Self::F64(_) | Self::Sink => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_all_shapes() {
        let list = Operand::list("{%r1, _}, [%rd2+-8], -1, 0f3F800000, !%p1, %r3|%p4, 7U", 1);
        let name = |text: &str| Operand::Name(text.to_owned());
        let address = Operand::Address {
            base: Box::new(name("%rd2")),
            offset: -8,
            coordinates: Vec::new(),
        };
        let expected = vec![
            Operand::Vector(vec![name("%r1"), Operand::Sink]),
            address,
            Operand::Int(u64::MAX),
            Operand::F32(0x3F80_0000),
            Operand::Not("%p1".to_owned()),
            Operand::Pair(Box::new(name("%r3")), Box::new(name("%p4"))),
            Operand::Int(7),
        ];
        assert_eq!(list.unwrap(), expected);
        assert!(Operand::list("[%rd1", 3).is_err());
        assert!(Operand::list("[%rd1+x]", 3).is_err());
    }
}
