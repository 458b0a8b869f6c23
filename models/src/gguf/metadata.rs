//! Metadata to be written.

/// Metadata entries of a GGUF file, in the order in which they were added. A key that is added
/// again replaces the value it had.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufMetadata {
    /// A key, and its type and value as they are in a file.
    entries: Vec<(String, Vec<u8>)>,
}

const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl GgufMetadata {
    pub fn u32(&mut self, key: &str, value: u32) {
        self.put(key, U32, &value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.put(key, F32, &value.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.put(key, BOOL, &[u8::from(value)]);
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.put(key, STRING, &string(value));
    }

    pub fn strings<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        self.array(key, STRING, values.into_iter().map(string));
    }

    pub fn i32s(&mut self, key: &str, values: impl IntoIterator<Item = i32>) {
        self.array(key, I32, values.into_iter().map(i32::to_le_bytes));
    }

    pub fn f32s(&mut self, key: &str, values: impl IntoIterator<Item = f32>) {
        self.array(key, F32, values.into_iter().map(f32::to_le_bytes));
    }

    pub fn bools(&mut self, key: &str, values: impl IntoIterator<Item = bool>) {
        self.array(key, BOOL, values.into_iter().map(|b| [u8::from(b)]));
    }

    /// An entry as another file stores it: its type, then its value.
    pub(crate) fn raw(&mut self, key: &str, bytes: &[u8]) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, value)) => *value = bytes.to_vec(),
            None => self.entries.push((key.to_string(), bytes.to_vec())),
        }
    }

    /// Adds all entries of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (key, bytes) in &other.entries {
            self.raw(key, bytes);
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn put(&mut self, key: &str, ty: u32, value: &[u8]) {
        let mut bytes = ty.to_le_bytes().to_vec();
        bytes.extend(value);
        self.raw(key, &bytes);
    }

    fn array<B: AsRef<[u8]>>(&mut self, key: &str, ty: u32, values: impl Iterator<Item = B>) {
        let mut n = 0_u64;
        let mut elements = Vec::new();
        for value in values {
            n += 1;
            elements.extend_from_slice(value.as_ref());
        }
        let mut bytes = ty.to_le_bytes().to_vec();
        bytes.extend(n.to_le_bytes());
        bytes.extend(elements);
        self.put(key, ARRAY, &bytes);
    }

    /// All entries as they stand in a file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in &self.entries {
            bytes.extend(string(key));
            bytes.extend(value);
        }
        bytes
    }
}

/// A string as the format has it: its length, then its bytes.
pub(super) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
