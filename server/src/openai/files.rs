//! `/v1/files` on the wire: what an upload says of its file, and what is told of it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ApiError;

/// What a file is for. The server reads none of them by itself.
const PURPOSES: [&str; 6] = [
    "assistants",
    "batch",
    "fine-tune",
    "vision",
    "user_data",
    "evals",
];
/// Seconds that a file may be asked to be kept.
const SECONDS: std::ops::RangeInclusive<u64> = 3600..=2_592_000;
/// Characters of a name.
const MAX_NAME: usize = 512;

/// What is told of a file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FileObject {
    pub id: String,
    /// `file`.
    pub object: String,
    pub bytes: u64,
    pub created_at: u64,
    /// When it is deleted, in seconds of Unix time; without it, when somebody does so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    pub filename: String,
    pub purpose: String,
    /// `processed`: there is nothing to be done.
    pub status: String,
}

/// The fields of an upload beside the file itself, as they come.
#[derive(Debug, Default)]
pub struct FileFields {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

/// What they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTerms {
    pub purpose: String,
    /// How long it is kept; `None`: as stored objects are.
    pub expires_after: Option<Duration>,
}

impl FileFields {
    /// Takes a field.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        let place = match name {
            "purpose" => &mut self.purpose,
            "expires_after[anchor]" => &mut self.anchor,
            "expires_after[seconds]" => &mut self.seconds,
            _ => return Err(ApiError::unknown_parameter(name)),
        };
        if place.replace(value).is_some() {
            return Err(twice(name));
        }
        Ok(())
    }

    /// All of them have come.
    pub fn finish(self) -> Result<FileTerms, ApiError> {
        let purpose = self.purpose.ok_or_else(|| ApiError::missing("purpose"))?;
        check_purpose(&purpose)?;
        let expires_after = match (self.anchor, self.seconds) {
            (None, None) => None,
            (None, Some(_)) => return Err(ApiError::missing("expires_after[anchor]")),
            (Some(_), None) => return Err(ApiError::missing("expires_after[seconds]")),
            (Some(anchor), Some(seconds)) => Some(expiry(&anchor, &seconds)?),
        };
        Ok(FileTerms {
            purpose,
            expires_after,
        })
    }
}

/// A field that a form may have once.
pub(crate) fn twice(name: &str) -> ApiError {
    let message = format!("Invalid '{name}': the form has this field more than once.");
    ApiError::invalid(name, "invalid_value", message)
}

/// Refuses purposes that nobody knows.
pub(crate) fn check_purpose(purpose: &str) -> Result<(), ApiError> {
    if PURPOSES.contains(&purpose) {
        return Ok(());
    }
    let known: Vec<String> = PURPOSES.iter().map(|known| format!("'{known}'")).collect();
    let known = known.join(", ");
    let message = format!("Invalid value: '{purpose}'. Supported values are: {known}.");
    Err(ApiError::invalid("purpose", "invalid_value", message))
}

/// Refuses names that nobody would want to see again.
pub(crate) fn check_filename(name: &str) -> Result<(), ApiError> {
    let n_characters = name.chars().count();
    if (1..=MAX_NAME).contains(&n_characters) {
        return Ok(());
    }
    let message = format!(
        "Invalid 'file': expected a file with a name of 1 to {MAX_NAME} characters, but it has \
         {n_characters}."
    );
    Err(ApiError::invalid("file", "invalid_value", message))
}

fn expiry(anchor: &str, seconds: &str) -> Result<Duration, ApiError> {
    if anchor != "created_at" {
        let message = format!("Invalid value: '{anchor}'. Supported values are: 'created_at'.");
        return Err(ApiError::invalid(
            "expires_after[anchor]",
            "invalid_value",
            message,
        ));
    }
    let name = "expires_after[seconds]";
    let n: u64 = seconds
        .parse()
        .map_err(|_| ApiError::wrong_type(name, "an integer", "a string"))?;
    if SECONDS.contains(&n) {
        return Ok(Duration::from_secs(n));
    }
    let (code, bound) = if n < *SECONDS.start() {
        ("integer_below_min_value", format!(">= {}", SECONDS.start()))
    } else {
        ("integer_above_max_value", format!("<= {}", SECONDS.end()))
    };
    let message = format!("Invalid '{name}': expected a value {bound}, but got {n} instead.");
    Err(ApiError::invalid(name, code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<FileTerms, ApiError> {
        let mut read = FileFields::default();
        for (name, value) in fields {
            read.set(name, (*value).to_owned())?;
        }
        read.finish()
    }

    #[test]
    fn fields_are_read_or_refused_by_name() {
        let (anchor, seconds) = ("expires_after[anchor]", "expires_after[seconds]");
        let terms = read(&[
            (seconds, "3600"),
            ("purpose", "batch"),
            (anchor, "created_at"),
        ]);
        let terms = terms.unwrap();
        assert_eq!(terms.purpose, "batch");
        assert_eq!(terms.expires_after, Some(Duration::from_secs(3600)));
        for (fields, param) in [
            (vec![], "purpose"),
            (vec![("purpose", "fun")], "purpose"),
            (vec![("purpose", "batch"), ("purpose", "batch")], "purpose"),
            (vec![("porpoise", "batch")], "porpoise"),
            (vec![("purpose", "batch"), (anchor, "created_at")], seconds),
            (vec![("purpose", "batch"), (seconds, "3600")], anchor),
            (
                vec![("purpose", "batch"), (anchor, "now"), (seconds, "3600")],
                anchor,
            ),
            (
                vec![("purpose", "batch"), (anchor, "created_at"), (seconds, "1")],
                seconds,
            ),
            (
                vec![("purpose", "batch"), (anchor, "created_at"), (seconds, "x")],
                seconds,
            ),
        ] {
            let error = read(&fields).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
        }
        assert!(check_filename("").is_err() && check_filename(&"x".repeat(513)).is_err());
    }
}
