//! What a launch did, counted.

/// Counts of one launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions issued by warps.
    pub warp_instructions: u64,
    /// The same, each counted once for every lane that took part.
    pub lane_instructions: u64,
    /// Global memory instructions of warps.
    pub global_requests: u64,
    /// 32-byte sectors they touched.
    pub global_sectors: u64,
    /// Sectors that would hold what each of them asked for, if it lay together.
    pub global_ideal: u64,
    /// Bytes their lanes asked for.
    pub global_bytes: u64,
    /// Passes that shared memory instructions took.
    pub shared_wavefronts: u64,
    /// Passes they would take without bank conflicts.
    pub shared_ideal: u64,
    /// Matrix multiply instructions of warps.
    pub mma: u64,
    /// Matrix multiply instructions of warp groups, counted by each of their warps.
    pub wgmma: u64,
    /// Bulk copies; their bytes are among the global ones.
    pub bulk_copies: u64,
    /// Arrivals of warps at block barriers.
    pub barriers: u64,
    /// Atomic instructions of warps on global memory.
    pub atomics: u64,
}

impl Counters {
    /// Adds another launch's or block's counts.
    pub fn add(&mut self, other: &Self) {
        self.warp_instructions += other.warp_instructions;
        self.lane_instructions += other.lane_instructions;
        self.global_requests += other.global_requests;
        self.global_sectors += other.global_sectors;
        self.global_ideal += other.global_ideal;
        self.global_bytes += other.global_bytes;
        self.shared_wavefronts += other.shared_wavefronts;
        self.shared_ideal += other.shared_ideal;
        self.mma += other.mma;
        self.wgmma += other.wgmma;
        self.bulk_copies += other.bulk_copies;
        self.barriers += other.barriers;
        self.atomics += other.atomics;
    }

    /// Sectors touched over the fewest that hold the bytes asked for: 1 is perfectly coalesced,
    /// below 1 means lanes shared bytes.
    #[must_use]
    pub fn sector_ratio(&self) -> f64 {
        self.global_sectors as f64 / (self.global_bytes as f64 / 32.0).max(1.0)
    }

    /// Shared memory passes over those without bank conflicts: 1 is free of conflicts.
    #[must_use]
    pub fn wavefront_ratio(&self) -> f64 {
        self.shared_wavefronts as f64 / (self.shared_ideal as f64).max(1.0)
    }
}
