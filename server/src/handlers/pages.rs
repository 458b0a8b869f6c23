//! Lists by pages: `limit`, `order` and `after`, as the SDKs ask for them.

use serde_json::{Value, json};

use super::records::array;
use crate::openai::{ApiError, INCLUDES, invalid_value};

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// A query, taken apart. What nobody asks for is refused by name.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

/// The part of a list that is asked for.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) ascending: bool,
    pub(super) after: Option<String>,
}

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let uri = format!("/?{}", query.unwrap_or_default());
        let uri: axum::http::Uri = uri
            .parse()
            .map_err(|_| ApiError::bad_request("The query of the URL cannot be read."))?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
        let axum::extract::Query(pairs) =
            pairs.map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(Self { pairs })
    }

    /// Takes a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let i = self.pairs.iter().position(|(found, _)| found == name)?;
        Some(self.pairs.swap_remove(i).1)
    }

    /// Takes a whole number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        let number = text.parse();
        number
            .map(Some)
            .map_err(|_| ApiError::wrong_type(name, "an integer", "a string"))
    }

    /// Takes `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::wrong_type(name, "a boolean", "a string")),
        }
    }

    /// Takes all `name[key]=value`.
    pub(super) fn map(&mut self, name: &str) -> Vec<(String, String)> {
        let key = |found: &str| {
            let rest = found.strip_prefix(name)?.strip_prefix('[')?;
            rest.strip_suffix(']').map(str::to_owned)
        };
        let (taken, left) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition::<Vec<_>, _>(|(found, _)| key(found).is_some());
        self.pairs = left;
        taken
            .into_iter()
            .filter_map(|(found, value)| Some((key(&found)?, value)))
            .collect()
    }

    /// Takes `include`, which adds nothing to what lists hold anyway.
    pub(super) fn take_include(&mut self) -> Result<(), ApiError> {
        let is_include = |name: &str| name == "include" || name.starts_with("include[");
        for (name, value) in self.pairs.iter().filter(|(name, _)| is_include(name)) {
            if !INCLUDES.contains(&value.as_str()) {
                return Err(invalid_value(name, value, &INCLUDES));
            }
        }
        self.pairs.retain(|(name, _)| !is_include(name));
        Ok(())
    }

    /// Takes `limit`, `order` and `after`.
    pub(super) fn page(&mut self, ascends: bool) -> Result<Page, ApiError> {
        self.page_of(ascends, DEFAULT_LIMIT, MAX_LIMIT)
    }

    /// The same, with limits of its own.
    pub(super) fn page_of(
        &mut self,
        ascends: bool,
        usual: usize,
        max: usize,
    ) -> Result<Page, ApiError> {
        let limit = match self.number("limit")? {
            None => usual,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=max).contains(limit))
                .ok_or_else(|| {
                    let message = format!(
                        "Invalid 'limit': expected an integer from 1 to {max}, but got \
                         {limit} instead."
                    );
                    ApiError::invalid("limit", "invalid_value", message)
                })?,
        };
        let ascending = match self.take("order").as_deref() {
            None => ascends,
            Some("asc") => true,
            Some("desc") => false,
            Some(other) => {
                let message =
                    format!("Invalid value: '{other}'. Supported values are: 'asc', 'desc'.");
                return Err(ApiError::invalid("order", "invalid_value", message));
            }
        };
        Ok(Page {
            limit,
            ascending,
            after: self.take("after"),
        })
    }

    /// Every parameter must have been taken.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::unknown_parameter(name)),
        }
    }
}

impl Page {
    /// The page of an array of items; anything else has none.
    pub(super) fn of_list(&self, list: Value) -> Result<Value, ApiError> {
        self.of(array(list))
    }

    /// The page of `items`, which are in ascending order and have ids.
    pub(super) fn of(&self, mut items: Vec<Value>) -> Result<Value, ApiError> {
        if !self.ascending {
            items.reverse();
        }
        if let Some(after) = &self.after {
            let i = items.iter().position(|item| item["id"] == *after);
            let i = i.ok_or_else(|| after_not_found(after))?;
            items.drain(..=i);
        }
        let has_more = items.len() > self.limit;
        items.truncate(self.limit);
        Ok(list(items, has_more))
    }
}

/// A cursor that points nowhere.
pub(super) fn after_not_found(after: &str) -> ApiError {
    let message = format!("Invalid 'after': there is no object '{after}' in this list.");
    ApiError::invalid("after", "invalid_value", message)
}

/// A page as the SDKs read it.
pub(super) fn list(items: Vec<Value>, has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.map_or(json!(""), |item| item["id"].clone());
    json!({
        "object": "list", "first_id": id(items.first()), "last_id": id(items.last()),
        "has_more": has_more, "data": items,
    })
}
