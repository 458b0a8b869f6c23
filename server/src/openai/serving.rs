//! Parameters about how a request is served, and not about what is answered: its class, and
//! with whom it shares the prefix cache.

use scheduler::Priority;
use sha2::{Digest, Sha256};

use super::{ApiError, Fields};

/// How to serve a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    class: Class,
    /// Requests share KV blocks only where both are equal.
    cache_salt: Option<String>,
    prompt_cache_key: Option<String>,
}

/// What was asked for, in whose words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Class {
    #[default]
    Default,
    /// vLLM's `priority`: lower goes first.
    Number(i64),
    Flex,
    Priority,
}

impl Serving {
    /// Takes `service_tier`, `priority`, `cache_salt` and `prompt_cache_key`.
    pub fn take(body: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            class: class(body)?,
            cache_salt: body.string("cache_salt")?,
            prompt_cache_key: body.string("prompt_cache_key")?,
        })
    }

    /// The class of the request. To go before others must be allowed by the operator.
    pub fn priority(&self, may_go_first: bool) -> Result<Priority, ApiError> {
        match self.class {
            Class::Default | Class::Number(0) => Ok(Priority::Normal),
            Class::Flex | Class::Number(1..) => Ok(Priority::Low),
            Class::Priority | Class::Number(_) if may_go_first => Ok(Priority::High),
            Class::Priority => Err(ApiError::unsupported_value(
                "service_tier",
                "'priority' (the operator has not set --allow-priority)",
            )),
            Class::Number(number) => Err(ApiError::unsupported_value(
                "priority",
                &format!("{number} (below 0 needs the operator's --allow-priority)"),
            )),
        }
    }

    /// `service_tier` of the answer.
    pub fn tier(&self) -> &'static str {
        match self.class {
            Class::Default | Class::Number(_) => "default",
            Class::Flex => "flex",
            Class::Priority => "priority",
        }
    }

    /// The root of the request's KV keys, which begin at that of the model.
    pub fn kv_root(&self, model_root: u64) -> u64 {
        if self.cache_salt.is_none() && self.prompt_cache_key.is_none() {
            return model_root;
        }
        let mut digest = Sha256::new();
        digest.update(model_root.to_le_bytes());
        for part in [&self.cache_salt, &self.prompt_cache_key] {
            // Length first, so that no two pairs are written alike; "" is not the same as none.
            let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
            digest.update(length.to_le_bytes());
            digest.update(part.as_deref().unwrap_or_default().as_bytes());
        }
        let digest = digest.finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
    }
}

fn class(body: &mut Fields) -> Result<Class, ApiError> {
    const TIERS: [&str; 6] = ["auto", "default", "flex", "priority", "scale", "fast"];
    let tier = match body.word("service_tier", &TIERS)? {
        None | Some("auto" | "default") => Class::Default,
        Some("flex") => Class::Flex,
        Some("priority") => Class::Priority,
        Some(other) => {
            let value = format!("'{other}'");
            return Err(ApiError::unsupported_value("service_tier", &value));
        }
    };
    let number = body.integer("priority", i64::from(i32::MIN), i64::from(i32::MAX))?;
    match (tier, number) {
        (tier, None) => Ok(tier),
        (Class::Default, Some(number)) => Ok(Class::Number(number)),
        (_, Some(_)) => {
            let message = "'priority' and a 'service_tier' other than 'auto' and 'default' \
                           cannot be combined.";
            Err(ApiError::invalid(
                "priority",
                "invalid_parameter_combination",
                message,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn serving(body: &Value) -> Result<Serving, ApiError> {
        let mut fields = Fields::from_value("", body.clone())?;
        let serving = Serving::take(&mut fields)?;
        fields.finish()?;
        Ok(serving)
    }

    #[test]
    fn only_equal_salts_and_keys_share_blocks() {
        let bodies = [
            json!({}),
            json!({"cache_salt": ""}),
            json!({"cache_salt": "a"}),
            json!({"prompt_cache_key": "a"}),
            json!({"cache_salt": "a", "prompt_cache_key": "b"}),
            json!({"cache_salt": "ab", "prompt_cache_key": ""}),
        ];
        let roots: Vec<u64> = bodies
            .iter()
            .map(|body| serving(body).unwrap().kv_root(7))
            .collect();
        assert_eq!(roots[0], 7);
        for (i, root) in roots.iter().enumerate() {
            assert!(!roots[..i].contains(root), "{}", bodies[i]);
            assert_eq!(serving(&bodies[i]).unwrap().kv_root(7), *root);
        }
        let salted = serving(&bodies[2]).unwrap();
        assert_ne!(salted.kv_root(7), salted.kv_root(8), "another model");
    }

    #[test]
    fn going_first_is_for_the_operator_to_allow() {
        for (body, expected) in [
            (json!({}), Priority::Normal),
            (json!({"priority": 0}), Priority::Normal),
            (json!({"priority": 3}), Priority::Low),
            (json!({"service_tier": "auto"}), Priority::Normal),
            (json!({"service_tier": "flex"}), Priority::Low),
        ] {
            let serving = serving(&body).unwrap();
            assert_eq!(serving.priority(false), Ok(expected), "{body}");
            assert_eq!(serving.priority(true), Ok(expected), "{body}");
        }
        for (body, param) in [
            (json!({"priority": -1}), "priority"),
            (json!({"service_tier": "priority"}), "service_tier"),
        ] {
            let serving = serving(&body).unwrap();
            assert_eq!(serving.priority(true), Ok(Priority::High), "{body}");
            let error = serving.priority(false).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains("--allow-priority"));
        }
    }

    #[test]
    fn senseless_classes_are_refused() {
        for body in [
            json!({"service_tier": "scale"}),
            json!({"service_tier": "best"}),
            json!({"service_tier": 1}),
            json!({"priority": "high"}),
            json!({"priority": 1, "service_tier": "flex"}),
        ] {
            assert!(serving(&body).is_err(), "{body}");
        }
    }
}
