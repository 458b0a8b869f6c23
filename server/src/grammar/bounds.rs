//! Bounds of numbers that the compiler of schemas can hold.
//!
//! It reads bounds of integers into 64 bits and turns their sign, which the least of them does not
//! survive: it would call itself until its stack is used up, and with it the process.

use serde_json::{Value, json};

/// The least bound whose sign can be turned, as a double that is not rounded down to -2^63.
pub(super) const LEAST: i64 = -9_223_372_036_854_774_784;
const LEAST_F64: f64 = -9_223_372_036_854_774_784.0;
/// Keywords whose values are no schemas.
const VALUES: [&str; 4] = ["const", "default", "enum", "examples"];
/// Keywords whose values are schemas by names, which may be spelt as keywords are.
const NAMED: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];

/// Raises lower bounds to what can be held, which admits nothing that was not admitted before.
///
/// # Errors
/// An upper bound lies below that: nothing could be admitted any more.
pub(super) fn fit(schema: &mut Value) -> Result<(), String> {
    match schema {
        Value::Array(list) => list.iter_mut().try_for_each(fit),
        Value::Object(map) => map.iter_mut().try_for_each(|(word, value)| {
            let is_below = value.as_f64().is_some_and(|bound| bound < LEAST_F64);
            match word.as_str() {
                "minimum" | "exclusiveMinimum" if is_below => *value = json!(LEAST),
                "maximum" | "exclusiveMaximum" if is_below => {
                    return Err(format!("'{word}' is {value}, and must be at least {LEAST}"));
                }
                word if VALUES.contains(&word) => {}
                word if NAMED.contains(&word) => match value {
                    Value::Object(named) => named.values_mut().try_for_each(fit)?,
                    other => fit(other)?,
                },
                _ => fit(value)?,
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_raised_or_refused() {
        let mut schema = json!({"properties": {"minimum": {"minimum": -1e30, "maximum": 1e30}},
            "anyOf": [{"exclusiveMinimum": i64::MIN}], "const": {"minimum": -1e30}});
        fit(&mut schema).unwrap();
        let fitted = json!({"properties": {"minimum": {"minimum": LEAST, "maximum": 1e30}},
            "anyOf": [{"exclusiveMinimum": LEAST}], "const": {"minimum": -1e30}});
        assert_eq!(schema, fitted);
        for names in NAMED {
            let mut schema = json!({names: {"default": {"minimum": -1e30}, "enum": {}}});
            fit(&mut schema).unwrap();
            assert_eq!(
                schema,
                json!({names: {"default": {"minimum": LEAST}, "enum": {}}})
            );
        }
        let error = fit(&mut json!({"items": {"maximum": i64::MIN}})).unwrap_err();
        assert!(
            error.contains("'maximum' is -9223372036854775808"),
            "{error}"
        );
    }
}
