//! A typed reader over a JSON object: it takes fields one by one, names the path in every
//! error, and reports whatever nobody asked for.

use serde_json::{Map, Value};

use super::{ApiError, json};

/// The fields of an object that have not been read yet.
#[derive(Clone, Debug)]
pub struct Fields {
    /// Path of the object itself; empty for the body.
    path: String,
    map: Map<String, Value>,
}

/// "a string", "an object": a value's JSON type, for people.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.as_f64().is_some_and(|x| x.fract() != 0.0) => {
            "a decimal number"
        }
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Fields {
    /// The body of a request.
    pub fn from_body(body: &[u8]) -> Result<Self, ApiError> {
        let value = json::parse(body).map_err(|error| {
            ApiError::bad_request(format!(
                "We could not parse the JSON body of your request: {error}."
            ))
        })?;
        match value {
            Value::Object(map) => Ok(Self {
                path: String::new(),
                map,
            }),
            other => Err(ApiError::bad_request(format!(
                "Invalid body: expected a JSON object, but got {} instead.",
                type_name(&other)
            ))),
        }
    }

    /// The object `value` at `path`.
    pub fn from_value(path: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self {
                path: path.to_owned(),
                map,
            }),
            other => Err(ApiError::wrong_type(path, "an object", type_name(&other))),
        }
    }

    /// Tests of the description learn here what readers ask for.
    fn note(&self, name: &str) {
        #[cfg(test)]
        asked::note(self.path(name));
        #[cfg(not(test))]
        let _: (&Self, &str) = (self, name);
    }

    /// The path of field `name`, for errors.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Takes field `name`; JSON `null` is the same as no field.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.note(name);
        // Order is of no account: the fields left are reported one at a time.
        self.map.swap_remove(name).filter(|value| !value.is_null())
    }

    /// Whether field `name` is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
    }

    /// Field `name`, which stays where it is.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.note(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// What has not been read yet.
    pub fn to_value(&self) -> Value {
        Value::Object(self.map.clone())
    }

    /// Gives back a field that was taken.
    pub fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Takes field `name`, which must be there: what is not is missing, and `null` is no value of
    /// it, as the hosted API tells the two apart.
    pub fn require(&mut self, name: &str, expected: &str) -> Result<Value, ApiError> {
        self.note(name);
        match self.map.swap_remove(name) {
            None => Err(ApiError::missing(&self.path(name))),
            Some(Value::Null) => Err(ApiError::wrong_type(&self.path(name), expected, "null")),
            Some(value) => Ok(value),
        }
    }

    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, "a string", &other)),
        }
    }

    pub fn required_string(&mut self, name: &str) -> Result<String, ApiError> {
        match self.require(name, "a string")? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong_type(name, "a string", &other)),
        }
    }

    pub fn bool(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong_type(name, "a boolean", &other)),
        }
    }

    /// An integer within `min..=max`.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let path = self.path(name);
        let Value::Number(number) = &value else {
            return Err(self.wrong_type(name, "an integer", &value));
        };
        let whole = whole(&value);
        let about = number.as_f64().unwrap_or(f64::NAN);
        match whole {
            Some(found) if found < min => Err(below_minimum(&path, "integer", &min, &found)),
            Some(found) if found <= max => Ok(Some(found)),
            Some(_) => Err(above_maximum(&path, "integer", &max, number)),
            // Beyond 64 bits, whether written out or with an exponent.
            None if about.fract() != 0.0 => Err(self.wrong_type(name, "an integer", &value)),
            None if about < 0.0 => Err(below_minimum(&path, "integer", &min, number)),
            None => Err(above_maximum(&path, "integer", &max, number)),
        }
    }

    /// A count within `min..=max`.
    pub fn count(&mut self, name: &str, min: u32, max: u32) -> Result<Option<u32>, ApiError> {
        let found = self.integer(name, i64::from(min), i64::from(max))?;
        Ok(found.map(|value| u32::try_from(value).expect("the range was checked")))
    }

    /// A number within `min..=max`.
    pub fn decimal(&mut self, name: &str, min: f64, max: f64) -> Result<Option<f64>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => decimal_in_range(&self.path(name), &value, min, max).map(Some),
        }
    }

    /// An object, as it is.
    pub fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong_type(name, "an object", &other)),
        }
    }

    /// An object to be read field by field.
    pub fn fields(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => Self::from_value(&self.path(name), value).map(Some),
        }
    }

    /// One of a few words.
    pub fn word(
        &mut self,
        name: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, ApiError> {
        let Some(found) = self.string(name)? else {
            return Ok(None);
        };
        match words.iter().find(|word| **word == found) {
            Some(word) => Ok(Some(word)),
            None => Err(invalid_value(&self.path(name), &found, words)),
        }
    }

    /// Refuses `name` by name if it is there.
    pub fn refuse(&mut self, name: &str) -> Result<(), ApiError> {
        match self.take(name) {
            None => Ok(()),
            Some(_) => Err(ApiError::unsupported_parameter(&self.path(name))),
        }
    }

    /// Every field must have been read.
    pub fn finish(self) -> Result<(), ApiError> {
        // A field that is null says nothing, but its name may still be a typing error.
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::unknown_parameter(&self.path(name))),
        }
    }

    pub fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> ApiError {
        ApiError::wrong_type(&self.path(name), expected, type_name(found))
    }
}

/// An integer, which JSON may also write as `5.0`.
pub(super) fn whole(value: &Value) -> Option<i64> {
    /// Decimals of this size are integers, and not all integers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let decimal = value
        .as_f64()
        .filter(|x| x.fract() == 0.0 && x.abs() < EXACT);
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and fits")]
    value.as_i64().or(decimal.map(|x| x as i64))
}

/// A number at `path` within `min..=max`.
pub(super) fn decimal_in_range(
    path: &str,
    value: &Value,
    min: f64,
    max: f64,
) -> Result<f64, ApiError> {
    let found = value
        .as_f64()
        .ok_or_else(|| ApiError::wrong_type(path, "a decimal number", type_name(value)))?;
    if found < min {
        Err(below_minimum(path, "decimal", &min, value))
    } else if found > max {
        Err(above_maximum(path, "decimal", &max, value))
    } else {
        Ok(found)
    }
}

/// A value outside of a closed list.
pub(crate) fn invalid_value(path: &str, found: &str, supported: &[&str]) -> ApiError {
    let supported: Vec<String> = supported.iter().map(|word| format!("'{word}'")).collect();
    let message = format!(
        "Invalid value: '{found}'. Supported values are: {}.",
        supported.join(", ")
    );
    ApiError::invalid(path, "invalid_value", message)
}

/// An array that must not be empty.
pub(crate) fn empty_array(path: &str) -> ApiError {
    let message = format!(
        "Invalid '{path}': empty array. Expected an array with minimum length 1, but got an \
         empty array instead."
    );
    ApiError::invalid(path, "empty_array", message)
}

/// An array with too many elements.
pub(crate) fn array_too_long(path: &str, max: usize, found: usize) -> ApiError {
    let message = format!(
        "Invalid '{path}': array too long. Expected an array with maximum length {max}, but got \
         an array with length {found} instead."
    );
    ApiError::invalid(path, "array_above_max_length", message)
}

fn below_minimum(
    path: &str,
    kind: &str,
    min: &dyn std::fmt::Display,
    found: &dyn std::fmt::Display,
) -> ApiError {
    let message = format!(
        "Invalid '{path}': {kind} below minimum value. Expected a value >= {min}, but got \
         {found} instead."
    );
    ApiError::invalid(path, "", message).with_code(format!("{kind}_below_min_value"))
}

fn above_maximum(
    path: &str,
    kind: &str,
    max: &dyn std::fmt::Display,
    found: &dyn std::fmt::Display,
) -> ApiError {
    let message = format!(
        "Invalid '{path}': {kind} above maximum value. Expected a value <= {max}, but got \
         {found} instead."
    );
    ApiError::invalid(path, "", message).with_code(format!("{kind}_above_max_value"))
}

#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static PATHS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(path: String) {
        PATHS.with_borrow_mut(|paths| paths.insert(path));
    }

    /// Paths of the fields that `read` asks for.
    pub(crate) fn asked_for(read: impl FnOnce()) -> BTreeSet<String> {
        PATHS.take();
        read();
        PATHS.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::from_body(body.as_bytes()).unwrap()
    }

    #[test]
    fn errors_name_path_and_code() {
        let mut body = fields(r#"{"outer": {"n": 1.5}, "t": 3, "k": 99999999999999999999}"#);
        let mut outer = body.fields("outer").unwrap().unwrap();
        let error = outer.integer("n", 0, 9).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("outer.n"));
        assert_eq!(error.code.as_deref(), Some("invalid_type"));
        let error = body.decimal("t", 0.0, 2.0).unwrap_err();
        assert_eq!(error.code.as_deref(), Some("decimal_above_max_value"));
        assert!(error.message.contains("<= 2, but got 3 instead"));
        let error = body.integer("k", 0, 5).unwrap_err();
        assert_eq!(error.code.as_deref(), Some("integer_above_max_value"));
    }

    #[test]
    fn integers_of_any_size_are_integers() {
        let most = i64::MAX;
        for (text, code) in [
            ("1000000000000000000000000000000", "integer_above_max_value"),
            ("18446744073709551615", "integer_above_max_value"),
            ("1e30", "integer_above_max_value"),
            ("-99999999999999999999", "integer_below_min_value"),
            ("0.5", "invalid_type"),
            ("-1e-3", "invalid_type"),
        ] {
            let mut body = fields(&format!(r#"{{"n": {text}, "s": {text}}}"#));
            let error = body.integer("n", i64::MIN, most).unwrap_err();
            assert_eq!(error.code.as_deref(), Some(code), "{text}");
            let kind = match code {
                "invalid_type" => "a decimal number",
                _ => "an integer",
            };
            let error = body.string("s").unwrap_err();
            assert!(error.message.contains(kind), "{}", error.message);
        }
        for text in ["5.0", "5e0", "9007199254740991.0"] {
            let found = fields(&format!(r#"{{"n": {text}}}"#)).integer("n", 0, most);
            assert!(found.unwrap().is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_left_is_unknown() {
        let mut body = fields(r#"{"a": true, "foo": null}"#);
        assert_eq!(body.bool("a").unwrap(), Some(true));
        let error = body.finish().unwrap_err();
        assert_eq!(error.message, "Unknown parameter: 'foo'.");
        assert_eq!(error.code.as_deref(), Some("unknown_parameter"));
    }
}
