//! One block at a time: its warps run in turn, each until it waits, ends, or has had its slice.

use super::agreement::Agreement;
use super::barrier::{self, Arrival, Barrier, N_BARRIERS};
use super::context::Context;
use super::counters::Counters;
use super::launch::Launch;
use super::mbarrier::{GlobalWrites, Phase};
use super::shared::Shared;
use super::warp::Warp;
use crate::code::{BarrierCall, Instruction, Op, WaitCall};
use crate::decode::Special;
use crate::fault::{Fault, FaultKind, LaneFault};
use crate::kernel::Kernel;
use crate::memory::Memory;
use crate::registers::{Registers, Width};

/// Instructions a warp runs before another has its turn, so that one that spins on what
/// another must write does not spin for ever.
const SLICE: u32 = 1 << 16;

/// Runs blocks of one launch, one after the other, in the same memory.
pub(super) struct BlockRunner<'a> {
    kernel: &'a Kernel,
    launch: &'a Launch,
    params: &'a [u8],
    memory: &'a Memory,
    fresh: Registers,
    warps: Vec<Warp>,
    shared: Shared,
    barriers: [Barrier; N_BARRIERS],
    /// What each four warps do as a group.
    groups: Vec<Agreement>,
    global_writes: Option<GlobalWrites>,
    pub(super) counters: Counters,
    block: [u32; 3],
    instructions: u64,
}

impl<'a> BlockRunner<'a> {
    pub(super) fn new(
        kernel: &'a Kernel,
        launch: &'a Launch,
        params: &'a [u8],
        memory: &'a Memory,
    ) -> Self {
        let n_warps = launch.n_threads().div_ceil(32) as usize;
        let fresh = kernel.layout.registers();
        let warp = || Warp::new(fresh.clone(), kernel.local_bytes);
        let is_bulk = |code: &Instruction| code.text.starts_with("cp.async.bulk");
        let has_bulk = kernel.code.iter().any(is_bulk);
        Self {
            kernel,
            launch,
            params,
            memory,
            warps: (0..n_warps).map(|_| warp()).collect(),
            fresh: kernel.layout.registers(),
            shared: Shared::new(&kernel.shared, launch.dynamic_shared, n_warps),
            barriers: std::array::from_fn(|_| Barrier::default()),
            groups: vec![Agreement::default(); n_warps.div_ceil(4)],
            global_writes: has_bulk.then(GlobalWrites::new),
            counters: Counters::default(),
            block: [0; 3],
            instructions: 0,
        }
    }

    /// Runs one block to its end.
    pub(super) fn run(&mut self, block: [u32; 3]) -> Result<(), Box<Fault>> {
        self.reset(block);
        loop {
            let mut ran = false;
            for warp in 0..self.warps.len() {
                if self.warps[warp].alive == 0 || self.warps[warp].waits {
                    continue;
                }
                ran |= self.slice(warp).map_err(|fault| self.place(warp, fault))?;
            }
            if self.instructions > self.launch.options.max_instructions {
                let instructions = self.instructions;
                let fault = FaultKind::Runaway { instructions }.of_warp();
                let running = self.warps.iter().position(|warp| warp.alive != 0);
                return Err(self.place(running.unwrap_or(0), fault));
            }
            if !ran {
                break;
            }
        }
        match self.warps.iter().position(|warp| warp.alive != 0) {
            None => self.unfinished(),
            Some(warp) => Err(self.place(warp, self.deadlock())),
        }
    }

    fn reset(&mut self, block: [u32; 3]) {
        self.block = block;
        self.instructions = 0;
        self.shared.reset();
        self.barriers = std::array::from_fn(|_| Barrier::default());
        self.groups.fill(Agreement::default());
        if let Some(writes) = &mut self.global_writes {
            writes.clear();
        }
        let n_threads = self.launch.n_threads();
        for (idx, warp) in self.warps.iter_mut().enumerate() {
            let n = (n_threads - 32 * idx as u32).min(32);
            warp.reset(u32::MAX >> (32 - n));
            warp.registers.clone_from(&self.fresh);
            for (special, slot) in self.kernel.layout.specials() {
                let values = special_values(special, self.launch, block, idx);
                warp.registers
                    .set_bits((Width::Word, slot), u32::MAX, &values);
            }
        }
    }

    /// Runs a warp for its slice; false if it could not do anything.
    fn slice(&mut self, warp: usize) -> Result<bool, LaneFault> {
        let code = &self.kernel.code;
        let (mut n, mut lanes) = (0u32, 0u64);
        let result = loop {
            let state = &mut self.warps[warp];
            let Some(instruction) = code.get(state.current.pc as usize) else {
                // Falling off the end is leaving.
                let all = state.current.mask;
                state.exit(all);
                if state.alive == 0 {
                    break Ok(true);
                }
                continue;
            };
            let active = state.active(instruction);
            if !instruction.tensor.is_empty() && active != 0 {
                state.products.touch(&instruction.tensor)?;
            }
            n += 1;
            lanes += u64::from(active.count_ones());
            if let Op::Alu(alu) = &instruction.op {
                if active != 0 {
                    alu(&mut state.registers, active);
                }
                state.current.pc += 1;
                state.reconverge();
            } else {
                match self.step(warp, instruction, active) {
                    Ok(true) => {}
                    // A wait that failed did nothing.
                    Ok(false) if self.warps[warp].waits_at.is_some() => {
                        n -= 1;
                        lanes -= u64::from(active.count_ones());
                        break Ok(n > 0);
                    }
                    Ok(false) => break Ok(true),
                    Err(fault) => break Err(fault),
                }
            }
            if n >= SLICE {
                break Ok(true);
            }
        };
        self.counters.warp_instructions += u64::from(n);
        self.counters.lane_instructions += lanes;
        self.instructions += u64::from(n);
        result
    }

    /// Runs an instruction that does more than compute; false if the warp cannot go on.
    fn step(
        &mut self,
        idx: usize,
        instruction: &Instruction,
        active: u32,
    ) -> Result<bool, LaneFault> {
        match &instruction.op {
            Op::Act(act) if active != 0 => act(&mut self.context(idx, instruction.line), active)?,
            Op::Wait(call) if active != 0 => {
                let passed = self.wait(idx, instruction.line, call, active)?;
                if !passed {
                    return Ok(false);
                }
            }
            _ => return self.go(idx, instruction, active),
        }
        let warp = &mut self.warps[idx];
        warp.current.pc += 1;
        warp.reconverge();
        Ok(true)
    }

    fn context(&mut self, idx: usize, line: u32) -> Context<'_> {
        let warp = &mut self.warps[idx];
        Context {
            registers: &mut warp.registers,
            warp: idx,
            alive: warp.alive,
            line,
            local: &mut warp.local,
            copies: &mut warp.copies,
            products: &mut warp.products,
            group: &mut self.groups[idx / 4],
            global_writes: &mut self.global_writes,
            shared: &mut self.shared,
            memory: self.memory,
            params: self.params,
            module: &self.kernel.module,
            counters: &mut self.counters,
            strict_global: self.launch.options.strict_global,
        }
    }

    /// Waits at barriers in shared memory; false if the warp has to stay.
    fn wait(
        &mut self,
        idx: usize,
        line: u32,
        call: &WaitCall,
        active: u32,
    ) -> Result<bool, LaneFault> {
        let registers = &self.warps[idx].registers;
        let addresses = call.address.lanes(registers);
        let phase = |lane: usize| match call.by_parity {
            true => Phase::Parity(registers.words[call.phase.0 as usize][lane] & 1 == 1),
            false => Phase::Token(registers.longs[call.phase.0 as usize][lane]),
        };
        let phases: [Phase; 32] = std::array::from_fn(phase);
        let mut context = self.context(idx, line);
        let mut waits_at = None;
        for lane in crate::registers::lanes(active) {
            let passed = context.mbarrier_wait(addresses[lane], phases[lane]);
            if !passed.map_err(|kind| kind.at(lane))? {
                waits_at = Some(addresses[lane]);
                break;
            }
        }
        let warp = &mut self.warps[idx];
        warp.waits_at = waits_at;
        if waits_at.is_none() {
            warp.registers.preds[call.done.0 as usize] |= active;
        }
        Ok(waits_at.is_none())
    }

    /// Runs an instruction that leads elsewhere, or waits; false if the warp cannot go on.
    fn go(
        &mut self,
        idx: usize,
        instruction: &Instruction,
        active: u32,
    ) -> Result<bool, LaneFault> {
        let warp = &mut self.warps[idx];
        match &instruction.op {
            Op::Branch(target) => {
                warp.branch(active, *target);
                return Ok(true);
            }
            Op::Switch(slot, targets) if active != 0 => {
                let chosen = warp.registers.words[slot.0 as usize];
                let target = |lane: usize| targets.get(chosen[lane] as usize).copied();
                if let Some(lane) = crate::registers::lanes(active).find(|l| target(*l).is_none()) {
                    let what = format!("jump to entry {} of {}", chosen[lane], targets.len());
                    return Err(FaultKind::Unsupported { what }.at(lane));
                }
                let each = std::array::from_fn(|lane| target(lane).unwrap_or(0));
                warp.scatter(active, &each);
                return Ok(true);
            }
            Op::Exit => {
                if active == 0 {
                    warp.current.pc += 1;
                    warp.reconverge();
                } else {
                    let rest = warp.current.mask & !active;
                    warp.exit(active);
                    debug_assert!(rest == 0 || warp.alive != 0);
                }
                return Ok(warp.alive != 0);
            }
            Op::Barrier(call) if active != 0 => return self.barrier(idx, call, active),
            _ => {}
        }
        let warp = &mut self.warps[idx];
        warp.current.pc += 1;
        warp.reconverge();
        Ok(true)
    }

    fn barrier(&mut self, idx: usize, call: &BarrierCall, active: u32) -> Result<bool, LaneFault> {
        let warp = &mut self.warps[idx];
        let all = u32::MAX >> (32 - (self.launch.n_threads() - 32 * idx as u32).min(32));
        if active != all {
            let expected = all;
            return Err(FaultKind::DivergentBarrier { active, expected }.of_warp());
        }
        let words = |slot: crate::registers::Slot| warp.registers.words[slot.0 as usize][0];
        let number = words(call.barrier);
        let barrier = barrier::index(number).map_err(FaultKind::of_warp)?;
        let whole = self.launch.n_threads().next_multiple_of(32);
        let reduction = call.reduction.map(|reduction| {
            let (slot, flip) = reduction.input;
            (reduction, warp.registers.preds[slot.0 as usize] ^ flip)
        });
        let arrival = Arrival {
            warp: idx,
            expected: call.n_threads.map_or(whole, words),
            waits: call.waits,
            reduction,
            alive: warp.alive,
        };
        self.counters.barriers += 1;
        warp.current.pc += 1;
        warp.waits = call.waits;
        let opened = self.barriers[barrier].arrive(arrival, &mut self.shared.clocks);
        let opened = opened.map_err(|what| {
            self.warps[idx].current.pc -= 1;
            let barrier = number;
            FaultKind::Barrier { barrier, what }.of_warp()
        })?;
        if let Some(opened) = opened {
            for warp in crate::registers::lanes(opened.warps) {
                self.warps[warp].waits = false;
            }
            for (warp, reduction, value) in opened.results {
                let width = match reduction.kind {
                    crate::code::ReductionKind::Count => Width::Word,
                    _ => Width::Pred,
                };
                let registers = &mut self.warps[warp].registers;
                registers.set_bits((width, reduction.output), u32::MAX, &[u64::from(value); 32]);
            }
        }
        Ok(!self.warps[idx].waits)
    }

    fn deadlock(&self) -> LaneFault {
        let states = self.barriers.iter().enumerate();
        let states =
            states.filter_map(|(n, barrier)| Some(format!("barrier {n}: {}", barrier.state()?)));
        let waited = self
            .shared
            .mbarriers
            .iter()
            .filter_map(|(address, barrier)| {
                let waits = |warp: &&Warp| warp.alive != 0 && warp.waits_at == Some(*address);
                let n = self.warps.iter().filter(waits).count();
                let state = barrier.state();
                (n > 0).then(|| format!("{n} warps wait at mbarrier {address:#x}, {state}"))
            });
        let mut what = states.chain(waited).collect::<Vec<_>>().join("; ");
        let done = self.warps.iter().filter(|warp| warp.alive == 0).count();
        what.push_str(&format!(
            "; {done} of {} warps have ended",
            self.warps.len()
        ));
        FaultKind::Deadlock { what }.of_warp()
    }

    /// What a block that has ended must not leave undone.
    fn unfinished(&self) -> Result<(), Box<Fault>> {
        let left = |thread: usize, line: u32, what: &str| {
            let what = what.to_owned();
            let fault = FaultKind::Unfinished { what }.at(thread % 32);
            Err(self.place_at(thread / 32, fault, |code| code.line == line))
        };
        if let Some((thread, line)) = self.shared.mbarriers.values().find_map(|b| b.unfinished()) {
            return left(thread as usize, line, "nobody waited for a bulk copy");
        }
        for (group, warps) in self.warps.chunks(4).enumerate() {
            let thread = |warp: usize| 32 * (4 * group + warp);
            let open = warps.iter().map(|warp| warp.products.unfinished());
            if let Some((warp, line)) = open.enumerate().find_map(|(i, line)| Some((i, line?))) {
                return left(thread(warp), line, "nobody waited for a wgmma");
            }
            if let Some((warp, line)) = self.groups[group].missing() {
                let warp = if warp < warps.len() { warp } else { 0 };
                let what = "not all warps of a group took part in a wgmma";
                return left(thread(warp), line, what);
            }
        }
        Ok(())
    }

    /// The fault with its place.
    fn place(&self, warp: usize, fault: LaneFault) -> Box<Fault> {
        let state = &self.warps[warp];
        // A warp that waits stands behind its barrier.
        let pc = state.current.pc as usize - usize::from(state.waits);
        let at = self.kernel.code.get(pc).map(|instruction| instruction.line);
        self.place_at(warp, fault, |code| Some(code.line) == at)
    }

    /// The fault with the place of another instruction than the one that the warp stands at.
    fn place_at(
        &self,
        warp: usize,
        fault: LaneFault,
        is_it: impl Fn(&Instruction) -> bool,
    ) -> Box<Fault> {
        let state = &self.warps[warp];
        let instruction = self.kernel.code.iter().find(|code| is_it(code));
        let lane = match (fault.lane, instruction) {
            (Some(lane), _) => lane,
            (None, Some(instruction)) => state.active(instruction).trailing_zeros() % 32,
            _ => 0,
        };
        let source = instruction.and_then(|instruction| instruction.source);
        let place = |(file, line): (u32, u32)| (self.kernel.file(file), line);
        Box::new(Fault {
            kernel: self.kernel.name().to_owned(),
            line: instruction.map_or(0, |instruction| instruction.line),
            source_line: source.map(|source| place(source.inlined_at.unwrap_or(source.at))),
            inlined_line: source
                .filter(|source| source.inlined_at.is_some())
                .map(|source| place(source.at)),
            instruction: instruction.map_or_else(String::new, |found| found.text.clone()),
            block: self.block,
            thread: Some(32 * warp as u32 + lane),
            kind: fault.kind,
        })
    }
}

/// A special register's lanes.
fn special_values(special: Special, launch: &Launch, block: [u32; 3], warp: usize) -> [u64; 32] {
    let [x, y, _] = launch.block;
    std::array::from_fn(|lane| {
        let thread = (32 * warp + lane) as u32;
        u64::from(match special {
            Special::Tid(0) => thread % x,
            Special::Tid(1) => thread / x % y,
            Special::Tid(_) => thread / (x * y),
            Special::Ntid(axis) => launch.block[axis],
            Special::Ctaid(axis) => block[axis],
            Special::Nctaid(axis) => launch.grid[axis],
            Special::Lane => lane as u32,
            Special::Warp => warp as u32,
            Special::NumWarps => launch.n_threads().div_ceil(32),
            Special::LaneMaskEq => 1 << lane,
            Special::LaneMaskLt => (1 << lane) - 1,
            Special::LaneMaskLe => u32::MAX >> (31 - lane),
            Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
            Special::LaneMaskGe => !((1 << lane) - 1),
            Special::DynamicShared => launch.dynamic_shared as u32,
            Special::Zero => 0,
            Special::One => 1,
        })
    })
}
