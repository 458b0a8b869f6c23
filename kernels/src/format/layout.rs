//! How quantized weights lie in memory, for every format in the same shape.
//!
//! Weights are cut into tiles of 16 output columns, and a tile into groups of 32 input values.
//! A SIMD lane of 32 bits is a column and holds four consecutive inputs (a quad), so sums never
//! cross lanes, and a quad meets one broadcast of four int8 activations in a dot instruction.
//! A group has eight quads. Codes are cut into bit planes: a low plane of 2, 4 or 8 bits and for
//! odd widths a high plane of 1 or 2. A plane of `b` bits takes `b` lines of 64 bytes for a
//! group: quad `j` sits in line `j % b`, shifted left by `b * (j / b)`. The same line, shifted
//! and masked, therefore gives whole quads without moving bytes.
//!
//! Scales lie apart from the codes, in the precision of the file:
//!
//! | kind | per 256 inputs | per group of 32 inputs |
//! |---|---|---|
//! | `PerGroup` | | 16 f16 `d` |
//! | `PerGroupMin` | | 16 f16 `d`, 16 f16 `m` |
//! | `Super32Min` | 16 f16 `d`, 16 f16 `dmin` | 16 u8 scales, 16 u8 minima |
//! | `Super16` | 16 f16 `d` | twice (for each 16 inputs) 16 i8 scales |
//! | `Super16Min` | 16 f16 `d`, 16 f16 `dmin` | twice 16 u8: scale low nibble, minimum high |

use crate::WeightType;

/// Output columns of a tile.
pub(crate) const TILE: usize = 16;
/// Input values of a group.
pub(crate) const GROUP: usize = 32;
/// Groups that share scales, in formats that have such.
pub(crate) const SUPER: usize = 8;
/// Bytes of a line of a plane.
pub(crate) const LINE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleKind {
    PerGroup,
    PerGroupMin,
    Super32Min,
    Super16,
    Super16Min,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) low_bits: usize,
    pub(crate) high_bits: usize,
    /// What a code of value 0 is: value = scale * (code - zero) + offset.
    pub(crate) zero: i32,
    pub(crate) scales: ScaleKind,
    /// Codes index [`super::IQ4_NL_VALUES`]; looked up, they are codes with `zero` 128.
    pub(crate) codebook: bool,
}

impl Layout {
    const fn new(low_bits: usize, high_bits: usize, zero: i32, scales: ScaleKind) -> Self {
        Self {
            low_bits,
            high_bits,
            zero,
            scales,
            codebook: false,
        }
    }

    /// The layout of a block format.
    ///
    /// # Panics
    /// When `ty` is dense.
    pub(crate) const fn of(ty: WeightType) -> Self {
        match ty {
            WeightType::Q4_0 => Self::new(4, 0, 8, ScaleKind::PerGroup),
            WeightType::Q4_1 => Self::new(4, 0, 0, ScaleKind::PerGroupMin),
            WeightType::Q5_0 => Self::new(4, 1, 16, ScaleKind::PerGroup),
            WeightType::Q5_1 => Self::new(4, 1, 0, ScaleKind::PerGroupMin),
            WeightType::Q8_0 => Self::new(8, 0, 128, ScaleKind::PerGroup),
            WeightType::Q2_K => Self::new(2, 0, 0, ScaleKind::Super16Min),
            WeightType::Q3_K => Self::new(2, 1, 4, ScaleKind::Super16),
            WeightType::Q4_K => Self::new(4, 0, 0, ScaleKind::Super32Min),
            WeightType::Q5_K => Self::new(4, 1, 0, ScaleKind::Super32Min),
            WeightType::Q6_K => Self::new(4, 2, 32, ScaleKind::Super16),
            WeightType::IQ4_NL => Self {
                codebook: true,
                ..Self::new(4, 0, 128, ScaleKind::PerGroup)
            },
            WeightType::F32 | WeightType::F16 | WeightType::BF16 => {
                panic!("dense types have no group layout")
            }
        }
    }

    /// Lines of codes that a group of a tile takes.
    pub(crate) const fn n_lines(self) -> usize {
        self.low_bits + self.high_bits
    }

    /// Parts of a group with a scale of their own.
    pub(crate) const fn n_halves(self) -> usize {
        match self.scales {
            ScaleKind::Super16 | ScaleKind::Super16Min => 2,
            _ => 1,
        }
    }

    pub(crate) const fn has_min(self) -> bool {
        !matches!(self.scales, ScaleKind::PerGroup | ScaleKind::Super16)
    }

    /// Whether every code fits seven bits: such codes times int8, two products added, stay
    /// within int16.
    pub(crate) const fn is_small(self) -> bool {
        self.n_lines() < 8 && !self.codebook
    }

    /// Bytes of scales before the groups of each 256 inputs.
    pub(crate) const fn super_bytes(self) -> usize {
        match self.scales {
            ScaleKind::PerGroup | ScaleKind::PerGroupMin => 0,
            ScaleKind::Super16 => 32,
            ScaleKind::Super32Min | ScaleKind::Super16Min => 64,
        }
    }

    /// Bytes of scales of a group.
    pub(crate) const fn group_bytes(self) -> usize {
        match self.scales {
            ScaleKind::PerGroupMin => 64,
            _ => 32,
        }
    }

    /// Where the scales of a group of a tile begin.
    #[inline(always)]
    pub(crate) const fn group_offset(self, group: usize) -> usize {
        (group / 8 + 1) * self.super_bytes() + group * self.group_bytes()
    }

    /// Where the scales of the 256 inputs around a group begin.
    #[inline(always)]
    pub(crate) const fn super_offset(self, group: usize) -> usize {
        group / SUPER * (self.super_bytes() + SUPER * self.group_bytes())
    }

    /// Whether groups share scales.
    pub(crate) const fn has_super(self) -> bool {
        self.super_bytes() > 0
    }

    /// Bytes of scales of a tile, `n_groups` long.
    pub(crate) const fn tile_scale_bytes(self, n_groups: usize) -> usize {
        n_groups.div_ceil(SUPER) * self.super_bytes() + n_groups * self.group_bytes()
    }
}
