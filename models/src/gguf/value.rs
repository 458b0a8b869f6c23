//! Metadata values.

use super::cursor::Cursor;

/// All values of one file, array elements included. The largest vocabularies have some
/// 2 million (tokens, scores, types, merges); a value takes more memory than file.
pub(super) const MAX_VALUES: usize = 1 << 23;

/// Arrays of arrays deeper than this do not occur.
const MAX_DEPTH: usize = 4;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Vec<GgufValue>),
}

impl GgufValue {
    /// A number without a sign, however it is stored.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A number, however it is stored.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(n) => Some(*n as f64),
            Self::Signed(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[GgufValue]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// For error messages; long values are not repeated.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Unsigned(n) => n.to_string(),
            Self::Signed(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::String(s) if s.len() <= 60 => format!("{s:?}"),
            Self::String(s) => format!("a string of {} bytes", s.len()),
            Self::Array(values) => format!("an array of {}", values.len()),
        }
    }
}

/// Reads a type and a value of this type. `budget`: values that the file may still have.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    key: &str,
    budget: &mut usize,
) -> Result<GgufValue, String> {
    let what = format!("metadata `{key}`");
    let ty = cursor.u32(&format!("type of {what}"))?;
    read_typed(cursor, ty, &what, budget, 0)
}

fn read_typed(
    cursor: &mut Cursor<'_>,
    ty: u32,
    what: &str,
    budget: &mut usize,
    depth: usize,
) -> Result<GgufValue, String> {
    *budget = budget
        .checked_sub(1)
        .ok_or_else(|| format!("{what}: the file has more than {MAX_VALUES} metadata values"))?;
    Ok(match ty {
        0 => GgufValue::Unsigned(u8::from_le_bytes(cursor.array(what)?).into()),
        1 => GgufValue::Signed(i8::from_le_bytes(cursor.array(what)?).into()),
        2 => GgufValue::Unsigned(u16::from_le_bytes(cursor.array(what)?).into()),
        3 => GgufValue::Signed(i16::from_le_bytes(cursor.array(what)?).into()),
        4 => GgufValue::Unsigned(cursor.u32(what)?.into()),
        5 => GgufValue::Signed(i32::from_le_bytes(cursor.array(what)?).into()),
        6 => GgufValue::Float(f32::from_le_bytes(cursor.array(what)?).into()),
        7 => match cursor.array::<1>(what)? {
            [0] => GgufValue::Bool(false),
            [1] => GgufValue::Bool(true),
            [other] => return Err(format!("{what}: {other} is not a boolean")),
        },
        8 => GgufValue::String(cursor.string(what)?.to_string()),
        9 => read_array(cursor, what, budget, depth)?,
        10 => GgufValue::Unsigned(cursor.u64(what)?),
        11 => GgufValue::Signed(i64::from_le_bytes(cursor.array(what)?)),
        12 => GgufValue::Float(f64::from_le_bytes(cursor.array(what)?)),
        other => return Err(format!("{what}: unknown value type {other}")),
    })
}

fn read_array(
    cursor: &mut Cursor<'_>,
    what: &str,
    budget: &mut usize,
    depth: usize,
) -> Result<GgufValue, String> {
    if depth == MAX_DEPTH {
        return Err(format!("{what}: arrays are nested too deeply"));
    }
    let ty = cursor.u32(&format!("element type of {what}"))?;
    let n = cursor.u64(&format!("length of {what}"))?;
    let smallest = match ty {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        other => return Err(format!("{what}: unknown element type {other}")),
    };
    cursor.check_count(n, smallest, &format!("length of {what}"))?;
    let mut values = Vec::new();
    for _ in 0..n {
        values.push(read_typed(cursor, ty, what, budget, depth + 1)?);
    }
    Ok(GgufValue::Array(values))
}
