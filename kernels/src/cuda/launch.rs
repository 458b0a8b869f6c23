//! What a kernel is started with.

/// An address in device memory; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    pub const NULL: Self = Self(0);

    /// `n_bytes` further on.
    #[must_use]
    pub fn offset(self, n_bytes: usize) -> Self {
        Self(self.0 + n_bytes as u64)
    }
}

/// Fields of a C struct, each aligned to its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn aligned<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(N), 0);
        self.bytes.extend(bytes);
        self
    }

    #[must_use]
    pub fn ptr(self, ptr: DevicePtr) -> Self {
        self.aligned(ptr.0.to_le_bytes())
    }

    #[must_use]
    pub fn int(self, value: i32) -> Self {
        self.aligned(value.to_le_bytes())
    }

    #[must_use]
    pub fn uint(self, value: u32) -> Self {
        self.aligned(value.to_le_bytes())
    }

    #[must_use]
    pub fn size(self, value: usize) -> Self {
        self.aligned((value as u64).to_le_bytes())
    }

    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.aligned(value.to_le_bytes())
    }

    #[must_use]
    pub fn double(self, value: f64) -> Self {
        self.aligned(value.to_le_bytes())
    }

    /// A struct within the struct; all of ours align to 8.
    #[must_use]
    pub fn fields(mut self, inner: &Self) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.bytes.extend(inner.padded(8));
        self
    }

    /// The bytes, filled up to a multiple of the alignment of the largest field.
    #[must_use]
    pub fn padded(&self, align: usize) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes
    }
}

/// Arguments of a kernel, laid out as its parameters are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    fields: Fields,
    offsets: Vec<usize>,
}

impl Params {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, add: impl FnOnce(Fields) -> Fields, n_bytes: usize) -> Self {
        self.fields = add(self.fields);
        self.offsets.push(self.fields.bytes.len() - n_bytes);
        self
    }

    #[must_use]
    pub fn ptr(self, ptr: DevicePtr) -> Self {
        self.push(|fields| fields.ptr(ptr), 8)
    }

    #[must_use]
    pub fn int(self, value: i32) -> Self {
        self.push(|fields| fields.int(value), 4)
    }

    #[must_use]
    pub fn size(self, value: usize) -> Self {
        self.push(|fields| fields.size(value), 8)
    }

    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.push(|fields| fields.float(value), 4)
    }

    /// A struct by value that holds pointers.
    #[must_use]
    pub fn value(self, value: &Fields) -> Self {
        let n_bytes = value.padded(8).len();
        self.push(|fields| fields.fields(value), n_bytes)
    }

    /// A struct by value of 4-byte fields.
    #[must_use]
    pub fn value4(self, value: &Fields) -> Self {
        let bytes = value.padded(4);
        let n_bytes = bytes.len();
        self.push(
            |mut fields| {
                fields.bytes.extend(bytes);
                fields
            },
            n_bytes,
        )
    }

    /// All parameters, each at its offset.
    pub fn bytes(&self) -> &[u8] {
        &self.fields.bytes
    }

    /// Where each parameter begins.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }
}

/// One start of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The [`super::Image`] that holds it.
    pub image: &'static str,
    pub kernel: &'static str,
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block; above 48 KiB the driver must be asked for it first.
    pub shared_bytes: u32,
    pub params: Params,
}

impl Launch {
    pub(super) fn new(image: &'static str, kernel: &'static str, params: Params) -> Self {
        Self {
            image,
            kernel,
            grid: [1; 3],
            threads: 128,
            shared_bytes: 0,
            params,
        }
    }

    pub(super) fn grid(mut self, grid: [usize; 3]) -> Self {
        self.grid = grid.map(super::uint);
        self
    }

    pub(super) fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    pub(super) fn shared(mut self, n_bytes: usize) -> Self {
        self.shared_bytes = super::uint(n_bytes);
        self
    }

    /// A thread a value, at most so many blocks as keep any device busy.
    pub(super) fn over_values(self, n: usize) -> Self {
        self.threads(256)
            .grid([n.div_ceil(256).clamp(1, 4096), 1, 1])
    }

    /// A block a row; threads for its width.
    pub(super) fn over_rows(self, n_rows: usize, width: usize) -> Self {
        let threads = super::uint(width.clamp(32, 256).next_multiple_of(32));
        self.threads(threads).grid([n_rows, 1, 1])
    }

    /// Whether there is nothing to start.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}
