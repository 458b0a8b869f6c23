//! One operation of the API, as the description has it.

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::answers::ErrorBody;

/// An operation on its way into the description.
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    object: Map<String, Value>,
    parameters: Vec<Value>,
    answers: Map<String, Value>,
    has_key: bool,
    /// What its errors look like, if not like all others.
    error: Option<Schema>,
}

impl Operation {
    pub(super) fn new(method: &'static str, path: &'static str, summary: &str) -> Self {
        let mut object = Map::new();
        object.insert("summary".to_owned(), json!(summary));
        let id: String = path
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        object.insert("operationId".to_owned(), json!(format!("{method}{id}")));
        let parameters = path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some(json!({"name": name, "in": "path", "required": true,
                "schema": {"type": "string", "minLength": 1}}))
        });
        Self {
            method,
            path,
            object,
            parameters: parameters.collect(),
            answers: Map::new(),
            has_key: true,
            error: None,
        }
    }

    /// The JSON that it takes.
    pub(super) fn takes<T: JsonSchema>(self, schemas: &mut SchemaGenerator) -> Self {
        let schema = schemas.subschema_for::<T>();
        self.takes_schema(&schema, true)
    }

    /// The same, and nothing as well.
    pub(super) fn may_take<T: JsonSchema>(self, schemas: &mut SchemaGenerator) -> Self {
        let schema = schemas.subschema_for::<T>();
        self.takes_schema(&schema, false)
    }

    /// The form that it takes.
    pub(super) fn takes_form<T: JsonSchema>(mut self, schemas: &mut SchemaGenerator) -> Self {
        let schema = schemas.subschema_for::<T>();
        let body = json!({"required": true,
            "content": {"multipart/form-data": {"schema": schema}}});
        self.object.insert("requestBody".to_owned(), body);
        self
    }

    fn takes_schema(mut self, schema: &Schema, required: bool) -> Self {
        let body = json!({"required": required,
            "content": {"application/json": {"schema": schema}}});
        self.object.insert("requestBody".to_owned(), body);
        self
    }

    /// The same; the model may be left out.
    pub(super) fn takes_any_model<T: JsonSchema>(self, schemas: &mut SchemaGenerator) -> Self {
        let schema = without_required_model::<T>(schemas);
        self.takes_schema(&schema, true)
    }

    /// One of two bodies; the model may be left out of both.
    pub(super) fn takes_either<A: JsonSchema, B: JsonSchema>(
        mut self,
        schemas: &mut SchemaGenerator,
    ) -> Self {
        let either = [
            schemas.subschema_for::<A>(),
            without_required_model::<B>(schemas),
        ];
        let body = json!({"required": true,
            "content": {"application/json": {"schema": {"anyOf": either}}}});
        self.object.insert("requestBody".to_owned(), body);
        self
    }

    /// The JSON that it answers.
    pub(super) fn answers<T: JsonSchema>(mut self, schemas: &mut SchemaGenerator) -> Self {
        let schema = schemas.subschema_for::<T>();
        let content = json!({"application/json": {"schema": schema}});
        self.answer(content);
        self
    }

    /// The text that it answers.
    pub(super) fn answers_text(mut self, kind: &str) -> Self {
        let content = json!({kind: {"schema": {"type": "string"}}});
        self.answer(content);
        self
    }

    /// With `stream`, it answers events, each of this form.
    pub(super) fn streams<E: JsonSchema>(mut self, schemas: &mut SchemaGenerator) -> Self {
        let event = schemas.subschema_for::<E>();
        self.answers["200"]["content"]["text/event-stream"] =
            json!({"schema": {"type": "string"}, "x-event": event});
        self
    }

    /// Its errors have a form of their own.
    pub(super) fn fails_as<E: JsonSchema>(mut self, schemas: &mut SchemaGenerator) -> Self {
        self.error = Some(schemas.subschema_for::<E>());
        self
    }

    fn answer(&mut self, content: Value) {
        let answer = json!({"description": "What was asked for.", "content": content});
        self.answers.insert("200".to_owned(), answer);
    }

    /// A parameter of its query.
    pub(super) fn query(mut self, name: &str, schema: Value) -> Self {
        self.parameters
            .push(json!({"name": name, "in": "query", "schema": schema}));
        self
    }

    /// The parameters of a list.
    pub(super) fn listed(self) -> Self {
        self.listed_to(100, 20)
    }

    /// The same, of at most `max` objects, and of `usual` if nothing is said.
    pub(super) fn listed_to(self, max: usize, usual: usize) -> Self {
        self.query(
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": max, "default": usual}),
        )
        .query("order", json!({"enum": ["asc", "desc"]}))
        .query("after", json!({"type": "string"}))
    }

    /// What generating requests may bring in their headers.
    pub(super) fn generates(mut self) -> Self {
        let header = |name: &str, schema: Value, description: &str| json!({"name": name, "in": "header", "schema": schema, "description": description});
        self.parameters.push(header(
            "Idempotency-Key",
            json!({"type": "string", "pattern": "^[!-~]{1,255}$"}),
            "The same request under the same key is answered once.",
        ));
        self.parameters.push(header(
            "x-request-timeout-ms",
            json!({"type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32}),
            "Milliseconds that the whole request may take.",
        ));
        self
    }

    /// It never needs a key.
    pub(super) fn without_key(mut self) -> Self {
        self.has_key = false;
        self
    }

    /// Puts it into the paths of the description.
    pub(super) fn finish(
        mut self,
        paths: &mut Map<String, Value>,
        schemas: &mut SchemaGenerator,
        needs_key: bool,
    ) {
        let usual = schemas.subschema_for::<ErrorBody>();
        let error = self.error.take().unwrap_or(usual);
        for (status, what) in [("4XX", "The request is refused."), ("5XX", "It failed.")] {
            let answer = json!({"description": what,
                "content": {"application/json": {"schema": error}}});
            self.answers.insert(status.to_owned(), answer);
        }
        let mut object = self.object;
        if !self.parameters.is_empty() {
            object.insert("parameters".to_owned(), json!(self.parameters));
        }
        if needs_key && self.has_key {
            object.insert("security".to_owned(), json!([{"key": []}]));
        }
        object.insert("responses".to_owned(), json!(self.answers));
        let path = paths.entry(self.path).or_insert_with(|| json!({}));
        path[self.method] = Value::Object(object);
    }
}

/// A body that needs no model, where others of its type do.
fn without_required_model<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(schemas);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "model");
    }
    schema
}
