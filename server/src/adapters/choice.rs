//! Which weights a request asks for: `base`, `adapter`, `base:adapter`, or a stack such as
//! `base:one@0.7+two@0.3`.

use crate::openai::{ApiError, Fields, array_too_long, empty_array};

/// Most adapters of one stack.
const MAX_PARTS: usize = 8;

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    Base,
    /// Names and weights; never empty.
    Adapters(Vec<(String, f32)>),
}

/// The names there are.
#[expect(missing_debug_implementations, reason = "it borrows a closure")]
pub struct Names<'a> {
    pub base: &'a [String],
    /// What another name stands for, which is not followed further.
    pub meant: &'a dyn Fn(&str) -> Option<String>,
    pub is_adapter: &'a dyn Fn(&str) -> bool,
    /// What callers may name, to be told to one who has named something else.
    pub told: &'a dyn Fn() -> Vec<String>,
}

impl Names<'_> {
    fn not_found(&self, name: &str) -> ApiError {
        ApiError::model_not_found(name, &(self.told)())
    }
}

impl Choice {
    /// Takes `model`, and the extensions `adapter` and `adapters`. Returns what `model` said.
    pub fn take(fields: &mut Fields, names: &Names<'_>) -> Result<(String, Self), ApiError> {
        let model = fields.required_string("model")?;
        let meant = (names.meant)(&model);
        let named = Self::of_model(meant.as_deref().unwrap_or(&model), names);
        let named = named.map_err(|error| match meant {
            Some(_) => error.of_asked(&model),
            None => error,
        })?;
        let (field, parts) = match (fields.string("adapter")?, parts_field(fields)?) {
            (None, None) => return Ok((model, named)),
            (Some(_), Some(_)) => return Err(combined("adapters", "'adapter'")),
            (Some(name), None) => ("adapter", vec![(name, 1.0)]),
            (None, Some(parts)) => ("adapters", parts),
        };
        if named != Self::Base {
            return Err(combined(field, "a 'model' that is an adapter"));
        }
        check(field, &parts, names)?;
        Ok((model, Self::Adapters(parts)))
    }

    /// What a name that is no alias stands for.
    pub(crate) fn of_model(model: &str, names: &Names<'_>) -> Result<Self, ApiError> {
        let single = |name: &str| Self::Adapters(vec![(name.to_owned(), 1.0)]);
        if names.base.iter().any(|base| base == model) {
            return Ok(Self::Base);
        }
        if (names.is_adapter)(model) {
            return Ok(single(model));
        }
        let unknown = || names.not_found(model);
        let after_base = |base: &String| model.strip_prefix(base.as_str())?.strip_prefix(':');
        let stack = names.base.iter().find_map(after_base).ok_or_else(unknown)?;
        if (names.is_adapter)(stack) {
            return Ok(single(stack));
        }
        let parts: Vec<(String, f32)> = stack.split('+').map(part).collect::<Result<_, _>>()?;
        check("model", &parts, names)?;
        Ok(Self::Adapters(parts))
    }
}

/// `name` or `name@weight`.
fn part(text: &str) -> Result<(String, f32), ApiError> {
    let Some((name, weight)) = text.rsplit_once('@') else {
        return Ok((text.to_owned(), 1.0));
    };
    let weight = weight.parse().map_err(|_| {
        let message = format!("Invalid 'model': '{weight}' is not the weight of an adapter.");
        ApiError::invalid("model", "invalid_value", message)
    })?;
    Ok((name.to_owned(), weight))
}

fn parts_field(fields: &mut Fields) -> Result<Option<Vec<(String, f32)>>, ApiError> {
    let Some(value) = fields.take("adapters") else {
        return Ok(None);
    };
    let Some(list) = value.as_array() else {
        return Err(fields.wrong_type("adapters", "an array of names or objects", &value));
    };
    if list.is_empty() {
        return Err(empty_array("adapters"));
    }
    if list.len() > MAX_PARTS {
        return Err(array_too_long("adapters", MAX_PARTS, list.len()));
    }
    let parts = list.iter().enumerate().map(|(i, item)| {
        if let Some(name) = item.as_str() {
            return Ok((name.to_owned(), 1.0));
        }
        let mut part = Fields::from_value(&format!("adapters[{i}]"), item.clone())?;
        let name = part.required_string("name")?;
        let weight = part.decimal("weight", -100.0, 100.0)?.unwrap_or(1.0);
        part.finish()?;
        Ok((name, weight as f32))
    });
    parts.collect::<Result<_, ApiError>>().map(Some)
}

/// Checks what the field `param` asks for.
fn check(param: &str, parts: &[(String, f32)], names: &Names<'_>) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::invalid(param, "invalid_value", message));
    if parts.len() > MAX_PARTS {
        let n_parts = parts.len();
        return invalid(format!(
            "Invalid '{param}': {n_parts} adapters, but at most {MAX_PARTS} can be stacked."
        ));
    }
    for (i, (name, weight)) in parts.iter().enumerate() {
        if !(names.is_adapter)(name) {
            let unknown = names.not_found(name);
            // As hosted, no field is named where it is the model's.
            return Err(match param {
                "model" => unknown,
                _ => unknown.with_param(param),
            });
        }
        if !weight.is_finite() || weight.abs() > 100.0 {
            return invalid(format!(
                "Invalid '{param}': the weight of adapter '{name}' is {weight}; expected a number \
                 from -100 to 100."
            ));
        }
        if parts[..i].iter().any(|(earlier, _)| earlier == name) {
            return invalid(format!(
                "Invalid '{param}': adapter '{name}' is named twice."
            ));
        }
    }
    Ok(())
}

fn combined(param: &str, other: &str) -> ApiError {
    let message = format!("'{param}' and {other} cannot be combined.");
    ApiError::invalid(param, "invalid_parameter_combination", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn choice(body: Value) -> Result<Choice, ApiError> {
        let names = Names {
            base: &["base".to_owned(), "org/b:1".to_owned()],
            meant: &|name| match name {
                "gpt-4o-mini" => Some("base:one@0.5".to_owned()),
                "ft:gpt-4o-mini:org::id" => Some("two".to_owned()),
                "stale" => Some("gone".to_owned()),
                _ => None,
            },
            is_adapter: &|name| ["one", "two", "a+b"].contains(&name),
            told: &|| vec!["base".to_owned(), "one".to_owned()],
        };
        let mut fields = Fields::from_value("", body)?;
        let (_, choice) = Choice::take(&mut fields, &names)?;
        fields.finish()?;
        Ok(choice)
    }

    fn stack(parts: &[(&str, f32)]) -> Choice {
        let parts = parts
            .iter()
            .map(|(name, weight)| ((*name).to_owned(), *weight));
        Choice::Adapters(parts.collect())
    }

    #[test]
    fn names_are_read_in_all_their_forms() {
        for (body, expected) in [
            (json!({"model": "base"}), Choice::Base),
            (json!({"model": "org/b:1"}), Choice::Base),
            (json!({"model": "one"}), stack(&[("one", 1.0)])),
            (json!({"model": "gpt-4o-mini"}), stack(&[("one", 0.5)])),
            (
                json!({"model": "ft:gpt-4o-mini:org::id"}),
                stack(&[("two", 1.0)]),
            ),
            (json!({"model": "base:one"}), stack(&[("one", 1.0)])),
            (json!({"model": "org/b:1:a+b"}), stack(&[("a+b", 1.0)])),
            (
                json!({"model": "base:one@0.7+two@-0.3"}),
                stack(&[("one", 0.7), ("two", -0.3)]),
            ),
            (
                json!({"model": "base", "adapter": "two"}),
                stack(&[("two", 1.0)]),
            ),
            (
                json!({"model": "base", "adapters": ["one", {"name": "two", "weight": 0.5}]}),
                stack(&[("one", 1.0), ("two", 0.5)]),
            ),
        ] {
            assert_eq!(choice(body.clone()), Ok(expected), "{body}");
        }
    }

    /// What is wrong, the status, the parameter it is in, and words of the message.
    type Wrong<'a> = (Value, u16, Option<&'a str>, &'a str);

    fn all_are_refused(wrong: &[Wrong<'_>]) {
        for (body, status, param, word) in wrong {
            let error = choice(body.clone()).unwrap_err();
            assert_eq!(error.status, *status, "{body}");
            assert_eq!(error.param.as_deref(), *param, "{body}");
            assert!(error.message.contains(word), "{body}: {}", error.message);
        }
    }

    #[test]
    fn wrong_names_are_named() {
        all_are_refused(&[
            (json!({"model": "other"}), 404, None, "`other`"),
            (json!({"model": "other"}), 404, None, "`base`, `one`"),
            (json!({"model": "stale"}), 404, None, "`stale`"),
            (json!({"model": "base:three"}), 404, None, "`three`"),
            (json!({"model": "base:one@x"}), 400, Some("model"), "'x'"),
            (json!({"model": "base:one@inf"}), 400, Some("model"), "inf"),
            (
                json!({"model": "base:one+one"}),
                400,
                Some("model"),
                "twice",
            ),
        ]);
    }

    #[test]
    fn wrong_combinations_and_lists_are_named() {
        let nine = vec!["one"; 9];
        all_are_refused(&[
            (
                json!({"model": "one", "adapter": "two"}),
                400,
                Some("adapter"),
                "'adapter' and a 'model' that is an adapter cannot be combined",
            ),
            (
                json!({"model": "one", "adapters": ["two"]}),
                400,
                Some("adapters"),
                "'adapters' and a 'model' that is an adapter cannot be combined",
            ),
            (
                json!({"model": "base", "adapter": "two", "adapters": ["one"]}),
                400,
                Some("adapters"),
                "'adapters' and 'adapter' cannot be combined",
            ),
            (
                json!({"model": "base", "adapters": []}),
                400,
                Some("adapters"),
                "empty array",
            ),
            (
                json!({"model": "base", "adapters": nine}),
                400,
                Some("adapters"),
                "array too long",
            ),
            (
                json!({"model": "base", "adapters": "one"}),
                400,
                Some("adapters"),
                "a string",
            ),
            (
                json!({"model": "base", "adapters": ["one", "one"]}),
                400,
                Some("adapters"),
                "twice",
            ),
            (
                json!({"model": "base", "adapters": [{"name": "one", "w": 1}]}),
                400,
                Some("adapters[0].w"),
                "w",
            ),
            (
                json!({"model": "base", "adapter": "three"}),
                404,
                Some("adapter"),
                "`three`",
            ),
        ]);
    }
}
