//! Generic addresses: a window for each space but global, which is everything else.

use crate::fault::Space;

const WINDOW_SHIFT: u32 = 56;
const OFFSET_MASK: u64 = (1 << WINDOW_SHIFT) - 1;

/// The high byte of a space's generic addresses; global ones have none.
pub(crate) fn window(space: Space) -> u64 {
    match space {
        Space::Global => 0,
        Space::Shared => 0xF1 << WINDOW_SHIFT,
        Space::Local => 0xF2 << WINDOW_SHIFT,
        Space::Module => 0xF3 << WINDOW_SHIFT,
        Space::Param => 0xF4 << WINDOW_SHIFT,
    }
}

/// The space that a generic address lies in.
pub(crate) fn space(address: u64) -> Space {
    match address >> WINDOW_SHIFT {
        0xF1 => Space::Shared,
        0xF2 => Space::Local,
        0xF3 => Space::Module,
        0xF4 => Space::Param,
        _ => Space::Global,
    }
}

/// An address of a space as a generic one. Module variables already are.
pub(crate) fn to_generic(address: u64, window: u64) -> u64 {
    address | window
}

/// The reverse: an address of another space than `window`'s stays what it is and will fault.
pub(crate) fn from_generic(address: u64, window: u64) -> u64 {
    if window != 0 && window != self::window(Space::Module) && address & !OFFSET_MASK == window {
        address & OFFSET_MASK
    } else {
        address
    }
}

/// The address in its own space.
pub(crate) fn offset(address: u64) -> u64 {
    match space(address) {
        Space::Global => address,
        _ => address & OFFSET_MASK,
    }
}
