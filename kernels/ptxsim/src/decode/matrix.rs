//! Loads and stores of 8x8 tiles of 16-bit values by a whole warp.

use super::Decoder;
use super::memory::Address;
use crate::code::{Act, Op};
use crate::fault::{FaultKind, LaneFault, PtxError};
use crate::registers::{Lane, Slot};
use crate::run::{Context, Write};

/// All 32 lanes must take part.
pub(super) fn all_lanes(what: &'static str, active: u32) -> Result<(), LaneFault> {
    if active == u32::MAX {
        return Ok(());
    }
    Err(FaultKind::InactiveLanes { what, active }.of_warp())
}

/// Bytes of one row of an 8x8 tile of 16-bit values.
const ROW: usize = 16;

impl Decoder<'_> {
    pub(super) fn matrix(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "ldmatrix" => self.load_matrix(),
            "stmatrix" => self.store_matrix(),
            "movmatrix" => self.transpose(),
            _ => self.multiply(),
        }
    }

    fn tiles(&self) -> Result<usize, PtxError> {
        self.only(&[
            "sync",
            "aligned",
            "m8n8",
            "x1",
            "x2",
            "x4",
            "trans",
            "shared",
            "shared::cta",
        ])?;
        Ok(match () {
            () if self.has("x4") => 4,
            () if self.has("x2") => 2,
            () => 1,
        })
    }

    fn load_matrix(&mut self) -> Result<Op, PtxError> {
        let n = self.tiles()?;
        let targets = self.target_words(0)?;
        let address = self.address(1)?;
        let trans = self.has("trans");
        if targets.len() != n {
            return Err(self.error("registers do not fit the number of tiles"));
        }
        let act: Act = Box::new(move |context, active| {
            all_lanes("ldmatrix", active)?;
            let rows = address.lanes(context.registers);
            for (tile, target) in targets.iter().enumerate() {
                let values = load_tile(context, &rows, 8 * tile)?;
                let out = std::array::from_fn(|lane| fragment(&values, lane, trans));
                u32::write(context.registers, *target, active, &out);
            }
            context.count_rows(&rows, n);
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn store_matrix(&mut self) -> Result<Op, PtxError> {
        let n = self.tiles()?;
        let address = self.address(0)?;
        let sources = self.source_words(1)?;
        let trans = self.has("trans");
        if sources.len() != n {
            return Err(self.error("registers do not fit the number of tiles"));
        }
        let act: Act = Box::new(move |context, active| {
            all_lanes("stmatrix", active)?;
            store_tiles(context, address, &sources, trans)?;
            let rows = address.lanes(context.registers);
            context.count_rows(&rows, n);
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn transpose(&mut self) -> Result<Op, PtxError> {
        let (d, a) = (self.target::<u32>(0)?, self.source::<u32>(1)?);
        let act: Act = Box::new(move |context, active| {
            all_lanes("movmatrix", active)?;
            let values = tile_of(&u32::read(context.registers, a), false);
            let out = std::array::from_fn(|lane| fragment(&values, lane, true));
            u32::write(context.registers, d, active, &out);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}

/// An 8x8 tile, row by row.
type Tile = [[u16; 8]; 8];

/// What a lane holds of a tile: two neighbours of a row, or of a column if transposed.
fn fragment(tile: &Tile, lane: usize, trans: bool) -> u32 {
    let (row, column) = (lane / 4, 2 * (lane % 4));
    let at = |offset: usize| match trans {
        false => tile[row][column + offset],
        true => tile[column + offset][row],
    };
    u32::from(at(1)) << 16 | u32::from(at(0))
}

/// The tile that lanes hold.
fn tile_of(lanes: &[u32; 32], trans: bool) -> Tile {
    let mut tile = [[0; 8]; 8];
    for (lane, pair) in lanes.iter().enumerate() {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        for (offset, value) in [*pair as u16, (*pair >> 16) as u16].into_iter().enumerate() {
            match trans {
                false => tile[row][column + offset] = value,
                true => tile[column + offset][row] = value,
            }
        }
    }
    tile
}

/// Reads eight rows at the addresses of lanes `first..first + 8`.
fn load_tile(context: &mut Context<'_>, rows: &[u64; 32], first: usize) -> Result<Tile, LaneFault> {
    let mut tile = [[0; 8]; 8];
    for (row, tile) in tile.iter_mut().enumerate() {
        let lane = first + row;
        let actor = context.actor(lane);
        let bytes = context.shared.read(actor, rows[lane], ROW, ROW);
        let bytes = bytes.map_err(|kind| kind.at(lane))?;
        for (value, bytes) in tile.iter_mut().zip(bytes.chunks_exact(2)) {
            *value = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
    }
    Ok(tile)
}

fn store_tiles(
    context: &mut Context<'_>,
    address: Address,
    sources: &[Slot],
    trans: bool,
) -> Result<(), LaneFault> {
    let rows = address.lanes(context.registers);
    for (number, source) in sources.iter().enumerate() {
        let tile = tile_of(&u32::read(context.registers, *source), trans);
        for (row, values) in tile.iter().enumerate() {
            let lane = 8 * number + row;
            let actor = context.actor(lane);
            let bytes = context
                .shared
                .write(actor, rows[lane], ROW, ROW, Write::Plain);
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            for (bytes, value) in bytes.chunks_exact_mut(2).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    Ok(())
}
