//! The file of keys: TOML, one `[[key]]` each.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::limits::Limits;
use super::scope::{Grant, Scope};
use super::{Digest32, digest};

/// A file of keys that cannot be used. Keys themselves are never told.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the keys in {} cannot be read: {error}", path.display())]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is no file of keys: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    #[error("{}: key `{name}` {problem}", path.display())]
    Key {
        path: PathBuf,
        name: String,
        problem: &'static str,
    },
}

/// A key as a file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) digest: Digest32,
    pub(super) grant: Grant,
    pub(super) limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key: Option<String>,
    sha256: Option<String>,
    #[serde(default = "inference")]
    scopes: Vec<Scope>,
    models: Option<Vec<String>>,
    adapters: Option<Vec<String>>,
    requests_per_minute: Option<u32>,
    tokens_per_minute: Option<u32>,
    tokens_per_day: Option<u64>,
}

fn inference() -> Vec<Scope> {
    vec![Scope::Inference]
}

/// Reads all keys of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Described>, KeysError> {
    let text = std::fs::read_to_string(path).map_err(|error| KeysError::Read {
        path: path.to_owned(),
        error,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Described>, KeysError> {
    // The parser's own display shows the line, which may be that of a key.
    let file: File = toml::from_str(text).map_err(|error| KeysError::Parse {
        path: path.to_owned(),
        message: message(text, &error),
    })?;
    let mut keys: Vec<Described> = Vec::with_capacity(file.key.len());
    for entry in file.key {
        let name = entry.name.clone();
        let key = describe(entry).and_then(|key| {
            if keys.iter().any(|earlier| earlier.name == key.name) {
                return Err("is there twice");
            }
            if keys.iter().any(|earlier| earlier.digest == key.digest) {
                return Err("is the same key as an earlier one");
            }
            Ok(key)
        });
        keys.push(key.map_err(|problem| KeysError::Key {
            path: path.to_owned(),
            name,
            problem,
        })?);
    }
    Ok(keys)
}

fn message(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map(|span| text[..span.start].matches('\n').count() + 1);
    let what = error.message();
    line.map_or_else(|| what.to_owned(), |line| format!("line {line}: {what}"))
}

fn describe(entry: Entry) -> Result<Described, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if entry.name.is_empty() || entry.name.len() > 64 || !entry.name.chars().all(is_plain) {
        return Err("needs a name of 1 to 64 letters, digits, dots, dashes or underlines");
    }
    let digest = match (entry.key, entry.sha256) {
        (Some(key), None) if !key.trim().is_empty() => digest(key.trim()),
        (None, Some(hex)) => from_hex(&hex).ok_or("needs a `sha256` of 64 hexadecimal digits")?,
        _ => return Err("needs either `key` or `sha256`"),
    };
    if entry.scopes.is_empty() {
        return Err("has no scopes; expected inference, metrics or admin");
    }
    let limits = Limits {
        requests_per_minute: entry.requests_per_minute,
        tokens_per_minute: entry.tokens_per_minute,
        tokens_per_day: entry.tokens_per_day,
    };
    if limits.requests_per_minute == Some(0)
        || limits.tokens_per_minute == Some(0)
        || limits.tokens_per_day == Some(0)
    {
        return Err("has a limit of 0; leave the limit out, or take the key away");
    }
    Ok(Described {
        name: entry.name,
        digest,
        grant: Grant {
            scopes: entry.scopes,
            models: entry.models,
            adapters: entry.adapters,
        },
        limits,
    })
}

fn from_hex(text: &str) -> Option<Digest32> {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, i) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[i..i + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<Described>, String> {
        parse(Path::new("keys.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_given_plain_or_as_digests() {
        // printf %s secret | sha256sum
        let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let read = keys(&format!(
            "[[key]]\nname = 'a'\nkey = 'other'\n\
             [[key]]\nname = 'b'\nsha256 = '{hex}'\nscopes = ['metrics']\n\
             adapters = ['x-*']\ntokens_per_day = 5\n"
        ));
        let read = read.unwrap();
        assert_eq!(read[0].grant, Grant::of(&[Scope::Inference]));
        assert!(read[0].limits.is_empty());
        assert_eq!(read[1].digest, digest("secret"));
        assert!(read[1].grant.opens(Scope::Metrics) && !read[1].grant.opens(Scope::Inference));
        assert_eq!(read[1].limits.tokens_per_day, Some(5));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_key_is_told() {
        for (text, word) in [
            ("[[key]]\nname = 'a'", "either `key` or `sha256`"),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\nsha256 = 's3cret'",
                "either",
            ),
            ("[[key]]\nname = 'a'\nsha256 = 's3cret'", "64 hexadecimal"),
            ("[[key]]\nname = 'a b'\nkey = 's3cret'", "needs a name"),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\nscope = 'x'",
                "`scope`",
            ),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\nscopes = ['x']",
                "line 4",
            ),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\nscopes = []",
                "no scopes",
            ),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\ntokens_per_day = 0",
                "limit of 0",
            ),
            ("[[key]]\nname = 'a'\nkey = 's3cret\n", "line 3"),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\n[[key]]\nname = 'a'\nkey = 'u'",
                "there twice",
            ),
            (
                "[[key]]\nname = 'a'\nkey = 's3cret'\n[[key]]\nname = 'b'\nkey = 's3cret'",
                "same key",
            ),
        ] {
            let error = keys(text).unwrap_err();
            assert!(
                error.contains("keys.toml") && error.contains(word),
                "{error}"
            );
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert_eq!(keys("").unwrap(), []);
    }
}
