//! Parameters that the API does not have, where the operator has them left out instead of
//! refused (`--unknown-params warn`).

use serde_json::Value;

use crate::openai::ApiError;

/// Most parameters of one body that are left out.
const MAX_LEFT_OUT: usize = 64;

/// What to do with parameters that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum UnknownParams {
    /// Status 400 that names the first of them.
    #[default]
    Refuse,
    /// A warning in the log; the request is answered as if they were not there.
    Warn,
}

/// Reads `body`, without the parameters that `read` says it does not know.
pub(super) fn read_without<T>(
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut first = read(body);
    let mut left: Option<Value> = None;
    for _ in 0..MAX_LEFT_OUT {
        let Err(error) = &first else { break };
        let Some(path) = unknown(error) else { break };
        let mut value = match left.take() {
            Some(value) => value,
            None => match serde_json::from_slice(body) {
                Ok(value) => value,
                Err(_) => break,
            },
        };
        if !remove(&mut value, &path) {
            break;
        }
        tracing::warn!(param = path, "an unknown parameter is left out");
        first = read(value.to_string().as_bytes());
        left = Some(value);
    }
    first
}

fn unknown(error: &ApiError) -> Option<String> {
    let is_unknown = error.code.as_deref() == Some("unknown_parameter");
    error.param.clone().filter(|_| is_unknown)
}

/// Removes what lies at `path`, such as `messages[0].name`. Names may hold dots themselves.
fn remove(value: &mut Value, path: &str) -> bool {
    match value {
        Value::Object(map) => {
            if map.shift_remove(path).is_some() {
                return true;
            }
            map.iter_mut().any(|(name, inner)| {
                let rest = path.strip_prefix(name.as_str());
                rest.is_some_and(|rest| match rest.strip_prefix('.') {
                    Some(rest) => remove(inner, rest),
                    None => rest.starts_with('[') && remove(inner, rest),
                })
            })
        }
        Value::Array(items) => {
            let element = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let Some((index, rest)) = element else {
                return false;
            };
            let index: Option<usize> = index.parse().ok();
            let Some(item) = index.and_then(|index| items.get_mut(index)) else {
                return false;
            };
            remove(item, rest.strip_prefix('.').unwrap_or(rest))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::openai::Fields;

    #[test]
    fn paths_lead_to_what_they_name() {
        let mut value = json!({"a": [{"b": 1, "c.d": {"e": 2}}, [{"f": 3}]], "a.b": 4});
        for path in ["a[0].b", "a[0].c.d.e", "a[1][0].f", "a.b"] {
            assert!(remove(&mut value, path), "{path}");
            assert!(!remove(&mut value, path), "{path}");
        }
        assert_eq!(value, json!({"a": [{"c.d": {}}, [{}]]}));
        for path in ["a[7].b", "a[x]", "", "z", "a[0"] {
            assert!(!remove(&mut value, path), "{path}");
        }
    }

    #[test]
    fn only_what_is_unknown_is_left_out() {
        let read = |body: &[u8]| {
            let mut fields = Fields::from_body(body)?;
            let number = fields.integer("n", 0, 9)?;
            if let Some(mut inner) = fields.fields("inner")? {
                inner.bool("flag")?;
                inner.finish()?;
            }
            fields.finish()?;
            Ok(number)
        };
        let body = br#"{"n": 3, "x": 1, "inner": {"flag": true, "y": null}, "z": {}}"#;
        assert_eq!(read_without(body, read), Ok(Some(3)));
        let wrong = read_without(br#"{"x": 1, "n": 10}"#, read).unwrap_err();
        assert_eq!(wrong.code.as_deref(), Some("integer_above_max_value"));
        assert!(read_without(br#"{"x": 1, "x": 1}"#, read).is_err());
    }
}
