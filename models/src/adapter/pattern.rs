//! How PEFT's configuration names modules.

use regex::Regex;
use serde_json::Value;

/// Which modules a field means: all that a regular expression matches whole, or all whose name
/// is in a list or ends in a name of it.
#[derive(Clone, Debug)]
pub(crate) enum ModulePattern {
    Whole(Regex),
    Ends(Vec<String>),
}

impl ModulePattern {
    /// A string or a list of strings.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(expression) => whole(expression).map(Self::Whole),
            Value::Array(names) => {
                let name = |name: &Value| name.as_str().map(str::to_string);
                let names: Option<Vec<String>> = names.iter().map(name).collect();
                names
                    .map(Self::Ends)
                    .ok_or_else(|| format!("expected names, found {value}"))
            }
            other => Err(format!(
                "expected a string or a list of them, found {other}"
            )),
        }
    }

    pub(crate) fn matches(&self, module: &str) -> bool {
        match self {
            Self::Whole(expression) => expression.is_match(module),
            Self::Ends(names) => names.iter().any(|name| ends_with(module, name)),
        }
    }
}

/// Whether the last parts of a module's name are `name`.
pub(crate) fn ends_with(module: &str, name: &str) -> bool {
    let rest = module.strip_suffix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Numbers for modules whose name, or whose last parts, a regular expression matches: the first
/// that does counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct NumberPatterns(Vec<(Regex, f64)>);

impl NumberPatterns {
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let Some(map) = value.as_object() else {
            return Err(format!("expected an object, found {value}"));
        };
        let one = |(key, value): (&String, &Value)| {
            let number = value.as_f64().filter(|x| x.is_finite());
            let number = number.ok_or_else(|| format!("`{key}`: expected a number"))?;
            Ok((whole(&format!("(?:.*\\.)?(?:{key})"))?, number))
        };
        map.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn find(&self, module: &str) -> Option<f64> {
        let mut matching = self.0.iter().filter(|(key, _)| key.is_match(module));
        matching.next().map(|(_, number)| *number)
    }
}

/// A regular expression that must match from the first character to the last.
fn whole(expression: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{expression})$"))
        .map_err(|error| format!("regular expression `{expression}` is not supported: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_match_ends_and_strings_match_whole() {
        let list = ModulePattern::read(&json!(["q_proj", "mlp.up"])).unwrap();
        for (name, matches) in [
            ("model.layers.0.self_attn.q_proj", true),
            ("q_proj", true),
            ("my_q_proj", false),
            ("a.mlp.up", true),
            ("up", false),
        ] {
            assert_eq!(list.matches(name), matches, "{name}");
        }
        let whole = ModulePattern::read(&json!(".*\\.(a|b)_proj")).unwrap();
        assert!(whole.matches("x.a_proj") && !whole.matches("x.a_proj.y"));
        assert!(!whole.matches("a_proj"));
        assert!(ModulePattern::read(&json!("(?=x)")).is_err());
        assert!(ModulePattern::read(&json!([1])).is_err());
    }

    #[test]
    fn the_first_key_that_matches_counts() {
        let patterns = json!({"layers.1.q": 3, "q": 2, "v|w": 5});
        let patterns = NumberPatterns::read(&patterns).unwrap();
        assert_eq!(patterns.find("m.layers.1.q"), Some(3.0));
        assert_eq!(patterns.find("m.layers.11.q"), Some(2.0));
        assert_eq!(patterns.find("m.w"), Some(5.0));
        assert_eq!(patterns.find("m.xq"), None);
    }
}
