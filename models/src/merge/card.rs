//! What lies beside the weights: configuration, tokenizer, and a card that says what was merged.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;

use kernels::WeightType;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::source::Source;
use super::{MergeError, MergeOptions, MergeSource};

/// Files that go with a checkpoint, beside its `config.json` and weights.
const COMPANIONS: [&str; 12] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
];

/// Copies what `first` has, with the new type in its configuration.
pub(super) fn copy_files(
    first: &Source<'_>,
    dense: Option<WeightType>,
    out: &Path,
) -> Result<(), MergeError> {
    let mut config = first.config.clone();
    if let Some(ty) = dense {
        let name = match ty {
            WeightType::F16 => "float16",
            WeightType::BF16 => "bfloat16",
            _ => "float32",
        };
        // Old and new spelling.
        for field in ["torch_dtype", "dtype"] {
            if let Some(value) = config.get_mut(field) {
                *value = json!(name);
            }
        }
    }
    let path = out.join("config.json");
    let text = format!("{:#}\n", serde_json::Value::Object(config));
    std::fs::write(&path, text).map_err(|error| MergeError::write(&path, error))?;
    for name in COMPANIONS {
        let from = first.given.dir.join(name);
        if from.is_file() {
            let to = out.join(name);
            std::fs::copy(&from, &to).map_err(|error| MergeError::write(&to, error))?;
        }
    }
    Ok(())
}

/// Writes `README.md`.
pub(super) fn write(
    options: &MergeOptions,
    sources: &[Source<'_>],
    base: Option<&Source<'_>>,
    notes: &[String],
    out: &Path,
) -> Result<(), MergeError> {
    // Writing to a string cannot fail.
    let mut text = String::from("---\nbase_model:\n");
    for source in base.into_iter().chain(sources) {
        writeln!(text, "- {}", json!(source.name())).ok();
    }
    text.push_str("tags:\n- merge\n---\n\n# A merge of checkpoints\n\n");
    writeln!(
        text,
        "Made by Understudy {} with the method `{}`{}.\n",
        env!("CARGO_PKG_VERSION"),
        options.method.name(),
        parameters(options)
    )
    .ok();
    text.push_str("| checkpoint | weight | file | SHA-256 |\n|---|---|---|---|\n");
    if let Some(source) = base {
        rows(&mut text, source, "base".to_string())?;
    }
    for source in sources {
        rows(&mut text, source, source.given.weight.to_string())?;
    }
    let stored = match options.dense {
        Some(ty) => format!("{ty:?}"),
        None => "the types that the first checkpoint of the table has".to_string(),
    };
    writeln!(
        text,
        "\nSums were taken in 64 bits; the weights are stored in {stored}. Configuration, \
         tokenizer and chat template are those of the first checkpoint of the table."
    )
    .ok();
    if !notes.is_empty() {
        text.push_str("\nWhere the checkpoints are not alike:\n\n");
        for note in notes {
            writeln!(text, "- {note}").ok();
        }
    }
    let path = out.join("README.md");
    std::fs::write(&path, text).map_err(|error| MergeError::write(&path, error))
}

fn parameters(options: &MergeOptions) -> String {
    let mut parameters = Vec::new();
    if options.method.needs_base() {
        parameters.push(format!("scale {}", options.method.scale()));
    }
    if let Some(density) = options.method.density() {
        parameters.push(format!("density {density}"));
    }
    if let Some(seed) = options.method.seed() {
        parameters.push(format!("seed {seed}"));
    }
    match parameters.is_empty() {
        true => String::new(),
        false => format!(" ({})", parameters.join(", ")),
    }
}

/// A row of the table for each file of weights.
fn rows(text: &mut String, source: &Source<'_>, weight: String) -> Result<(), MergeError> {
    let MergeSource { name, .. } = source.given;
    for path in source.files() {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let digest = sha256(&path).map_err(|error| MergeError::write(&path, error))?;
        writeln!(text, "| {name} | {weight} | {file} | `{digest}` |").ok();
    }
    Ok(())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Hash(Sha256::new());
    io::copy(
        &mut io::BufReader::with_capacity(1 << 20, File::open(path)?),
        &mut hash,
    )?;
    let digest = hash.0.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A digest as something to write to.
struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
