//! The GGUF container, versions 2 and 3.

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

/// A mapped GGUF file.
#[derive(Debug)]
pub struct Gguf {}

impl Gguf {
    pub fn path(&self) -> &std::path::Path {
        unimplemented!()
    }

    pub fn get(&self, _key: &str) -> Option<&GgufValue> {
        unimplemented!()
    }
}
