//! Declarations of variables and parameters: `.shared .align 16 .b8 tile[4096]`.

use crate::fault::{PtxError, Space};
use crate::types::Type;

/// A variable of a module, kernel or thread, or a parameter.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) space: Space,
    pub(crate) align: usize,
    /// Size; none for `extern .shared x[]`.
    pub(crate) bytes: Option<usize>,
    /// Initial bytes of module variables.
    pub(crate) init: Option<Vec<u8>>,
}

fn integer(text: &str, line: u32) -> Result<i64, PtxError> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|v| v as i64),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| PtxError::new(line, format!("`{text}` is not an integer")))
}

/// The name and the number of elements of `name[2][3]`; no number for `name[]`.
fn dimensions(text: &str, line: u32) -> Result<(String, Option<usize>), PtxError> {
    let mut parts = text.split('[');
    let name = parts.next().unwrap_or_default().trim().to_owned();
    let mut n = Some(1);
    for part in parts {
        let inner = part.trim().trim_end_matches(']').trim();
        n = match (n, inner) {
            (_, "") => None,
            (None, _) => None,
            (Some(n), inner) => Some(n * integer(inner, line)? as usize),
        };
    }
    Ok((name, n))
}

fn initial(values: &str, ty: Type, bytes: usize, line: u32) -> Result<Vec<u8>, PtxError> {
    let values = values.trim().trim_matches(['{', '}']);
    let mut init = Vec::with_capacity(bytes);
    for value in values.split(',').filter(|v| !v.trim().is_empty()) {
        let value = value.trim();
        let bits = match value.strip_prefix("0f").or(value.strip_prefix("0d")) {
            Some(hex) => u64::from_str_radix(hex, 16)
                .map_err(|_| PtxError::new(line, format!("`{value}` is not a number")))?,
            None => integer(value, line)? as u64,
        };
        init.extend_from_slice(&bits.to_le_bytes()[..ty.bytes()]);
    }
    init.resize(bytes, 0);
    Ok(init)
}

impl Variable {
    /// Parses a declaration without its semicolon; none if it declares no variable.
    pub(super) fn parse(text: &str, line: u32) -> Result<Option<Self>, PtxError> {
        let (head, init) = match text.split_once('=') {
            Some((head, init)) => (head, Some(init)),
            None => (text, None),
        };
        let head = head.replace('[', " [").replace(" [", "[");
        let (mut space, mut align, mut ty, mut vector) = (None, 1, None, 1);
        let mut words = head.split_whitespace();
        let mut name = "";
        while let Some(word) = words.next() {
            match word {
                ".shared" => space = Some(Space::Shared),
                ".local" => space = Some(Space::Local),
                ".global" | ".const" => space = Some(Space::Module),
                ".param" => space = Some(Space::Param),
                ".align" => align = integer(words.next().unwrap_or_default(), line)? as usize,
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".visible" | ".extern" | ".weak" | ".common" | ".ptr" => {}
                word => match word.strip_prefix('.').and_then(Type::parse) {
                    Some(found) => ty = Some(found),
                    // `.param .u64 .ptr .global .align 1 x` names a space of the target.
                    None if word.starts_with('.') => {
                        let what = format!("declaration with `{word}`");
                        return Err(PtxError::new(line, what));
                    }
                    None => name = word,
                },
            }
        }
        if text.starts_with(".param") {
            space = Some(Space::Param);
        }
        let (Some(space), Some(ty)) = (space, ty) else {
            return Ok(None);
        };
        let (name, n) = dimensions(name, line)?;
        let bytes = n.map(|n| n * vector * ty.bytes());
        let of_type = if space == Space::Param && bytes == Some(ty.bytes()) {
            ty.bytes()
        } else {
            align
        };
        let init = match (init, bytes) {
            (Some(init), Some(bytes)) => Some(initial(init, ty, bytes, line)?),
            _ => None,
        };
        Ok(Some(Self {
            name,
            space,
            align: of_type.max(ty.bytes()),
            bytes,
            init,
        }))
    }
}
