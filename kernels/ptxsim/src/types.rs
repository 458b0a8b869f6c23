//! The value types that instructions name.

use std::fmt;

/// A PTX value type: what an instruction takes its operands to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
}

const NAMES: [(&str, Type, usize); 24] = [
    ("pred", Type::Pred, 1),
    ("b8", Type::B8, 1),
    ("b16", Type::B16, 2),
    ("b32", Type::B32, 4),
    ("b64", Type::B64, 8),
    ("b128", Type::B128, 16),
    ("u8", Type::U8, 1),
    ("u16", Type::U16, 2),
    ("u32", Type::U32, 4),
    ("u64", Type::U64, 8),
    ("s8", Type::S8, 1),
    ("s16", Type::S16, 2),
    ("s32", Type::S32, 4),
    ("s64", Type::S64, 8),
    ("f16", Type::F16, 2),
    ("bf16", Type::Bf16, 2),
    ("f16x2", Type::F16x2, 4),
    ("bf16x2", Type::Bf16x2, 4),
    ("f32", Type::F32, 4),
    ("f64", Type::F64, 8),
    ("e4m3", Type::E4m3, 1),
    ("e5m2", Type::E5m2, 1),
    ("e4m3x2", Type::E4m3x2, 2),
    ("e5m2x2", Type::E5m2x2, 2),
];

impl Type {
    /// The type of that name, without the dot.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _, _)| *known == name);
        found.map(|(_, ty, _)| *ty)
    }

    /// Size in bytes.
    pub(crate) fn bytes(self) -> usize {
        let found = NAMES.iter().find(|(_, ty, _)| *ty == self);
        found.map_or(0, |(_, _, bytes)| *bytes)
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.iter().find(|(_, ty, _)| ty == self);
        f.write_str(found.map_or("?", |(name, _, _)| name))
    }
}
