//! What real templates call besides Jinja's own: `raise_exception`, `strftime_now`, `tojson`.

use std::error::Error as _;

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::json::JsonStyle;
use super::{Clock, strftime};

/// The message of a template's own `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// The template's own exception behind an error, if that is what happened.
pub(super) fn raised(error: &Error) -> Option<&Raised> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(raised) = error.downcast_ref() {
            return Some(raised);
        }
        source = error.source();
    }
    None
}

pub(super) fn register(environment: &mut Environment<'static>, clock: Clock) {
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone())
                .with_source(Raised(message)))
        },
    );
    environment.add_function(
        "strftime_now",
        move |format: &str| -> Result<String, Error> {
            strftime::format(clock(), format)
                .map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_filter("tojson", to_json);
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, *, sort_keys=False)`: Python's
/// `json.dumps`, without Jinja's HTML escaping.
fn to_json(
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    separators: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let flag = |given: Option<bool>, name: &str| -> Result<bool, Error> {
        Ok(given.or(kwargs.get(name)?).unwrap_or(false))
    };
    let ensure_ascii = flag(ensure_ascii, "ensure_ascii")?;
    let sort_keys = flag(None, "sort_keys")?;
    let indent = indent
        .or(kwargs.get("indent")?)
        .filter(|indent| !indent.is_none());
    let indent = match indent {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(usize::try_from(indent)?.min(64)),
        }),
    };
    let separators = separators
        .or(kwargs.get("separators")?)
        .filter(|pair| !pair.is_none());
    kwargs.assert_all_used()?;
    let (item, key) = match separators {
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
        Some(pair) => {
            let text = |index: usize| -> Result<String, Error> {
                let part = pair.get_item(&Value::from(index))?;
                part.as_str().map(str::to_string).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidOperation,
                        "tojson: separators must be two strings",
                    )
                })
            };
            (text(0)?, text(1)?)
        }
    };
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            "tojson: the value is undefined",
        ));
    }
    let json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    Ok(JsonStyle {
        ensure_ascii,
        indent,
        item,
        key,
        sort_keys,
    }
    .write(&json))
}
