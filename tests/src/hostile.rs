//! Fifty schemas and grammars that nobody should send. Each is to be refused with status 400 in
//! time, whatever else runs.

use serde_json::{Map, Value, json};

/// One of them.
#[derive(Clone, Debug)]
pub struct Hostile {
    pub name: &'static str,
    /// Parameters of a chat request.
    pub parameters: Value,
}

/// All of them.
pub fn hostile() -> Vec<Hostile> {
    let mut all = Vec::new();
    let schemas = [wrong_schemas(), impossible_schemas(), heavy_schemas()];
    for (name, schema) in schemas.into_iter().flatten() {
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        all.push(Hostile {
            name,
            parameters: json!({"response_format": format}),
        });
    }
    for (name, regex) in regexes() {
        all.push(Hostile {
            name,
            parameters: json!({"regex": regex}),
        });
    }
    for (name, grammar) in grammars() {
        all.push(Hostile {
            name,
            parameters: json!({"grammar": grammar}),
        });
    }
    all.extend(others());
    all
}

fn wrong_schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("schema: unknown type", json!({"type": "strnig"})),
        ("schema: type of a type", json!({"type": 7})),
        (
            "schema: no such definition",
            json!({"$ref": "#/$defs/none"}),
        ),
        (
            "schema: elsewhere",
            json!({"$ref": "https://example.com/schema.json"}),
        ),
        ("schema: a file", json!({"$ref": "file:///etc/passwd"})),
        (
            "schema: pattern is no regex",
            json!({"type": "string", "pattern": "("}),
        ),
        (
            "schema: look ahead",
            json!({"type": "string", "pattern": "^(?=a)b$"}),
        ),
        (
            "schema: back reference",
            json!({"type": "string", "pattern": r"^(a+)\1$"}),
        ),
    ]
}

fn impossible_schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "schema: nothing fits both",
            json!({"allOf": [{"type": "string"}, {"type": "null"}]}),
        ),
        ("schema: empty choice", json!({"anyOf": []})),
        ("schema: empty enum", json!({"enum": []})),
        (
            "schema: a bound of integers below 64 bits",
            json!({"type": "object", "required": ["default"], "properties":
                {"default": {"type": "integer", "minimum": -1e30, "maximum": -1e30}}}),
        ),
        ("schema: not", json!({"not": {"type": "null"}})),
        (
            "schema: if",
            json!({"if": {"type": "null"}, "then": false, "else": true}),
        ),
        (
            "schema: unique items",
            json!({"type": "array", "uniqueItems": true}),
        ),
        (
            "schema: contains",
            json!({"type": "array", "contains": {"type": "null"}}),
        ),
        (
            "schema: property names",
            json!({"type": "object", "propertyNames": {"maxLength": 2}}),
        ),
        (
            "schema: dependents",
            json!({"type": "object", "dependentRequired": {"a": ["b"]}}),
        ),
        (
            "schema: unknown format",
            json!({"type": "string", "format": "no-such-format"}),
        ),
        (
            "schema: empty range",
            json!({"type": "integer", "minimum": 3, "maximum": 2}),
        ),
        (
            "schema: empty lengths",
            json!({"type": "string", "minLength": 3, "maxLength": 2}),
        ),
        (
            "schema: required without a schema",
            json!({"type": "object",
            "properties": {"a": {}}, "required": ["b"], "additionalProperties": false}),
        ),
        (
            "schema: a loop of references",
            json!({"$ref": "#/$defs/a",
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ),
    ]
}

fn heavy_schemas() -> Vec<(&'static str, Value)> {
    let words: Vec<String> = (0..55_000).map(|i| format!("word number {i}")).collect();
    let mut arrays = json!({"type": "null"});
    let mut objects = json!({});
    for _ in 0..100 {
        arrays = json!({"type": "array", "items": arrays});
        objects = json!({"type": "object", "properties": {"a": objects}});
    }
    let next = |i: u32| json!({"$ref": format!("#/$defs/d{}", i + 1)});
    let chain: Map<String, Value> = (0..8_000).map(|i| (format!("d{i}"), next(i))).collect();
    let optional: Map<String, Value> = (0..20_000)
        .map(|i| (format!("p{i}"), json!({"type": "null"})))
        .collect();
    let choice: Vec<Value> = (0..300)
        .map(|i| json!({"type": "object", "properties": {format!("a{i}"): {"type": "string"}}}))
        .collect();
    let all_of = json!([{"anyOf": choice}, {"anyOf": choice}, {"anyOf": choice}]);
    let by_pattern = json!({"type": "object", "patternProperties": {"(": {}}});
    let next_to_nothing =
        json!({"type": "number", "multipleOf": 1e-300, "minimum": 0, "maximum": 1});
    vec![
        ("schema: enum of a megabyte", json!({"enum": words})),
        ("schema: a hundred levels of arrays", arrays),
        ("schema: a hundred levels of objects", objects),
        (
            "schema: a chain of references",
            json!({"$ref": "#/$defs/d0", "$defs": chain}),
        ),
        (
            "schema: 20,000 properties",
            json!({"type": "object", "properties": optional}),
        ),
        ("schema: products of choices", json!({"allOf": all_of})),
        ("schema: names by a pattern that is none", by_pattern),
        ("schema: multiples of next to nothing", next_to_nothing),
    ]
}

fn regexes() -> Vec<(&'static str, String)> {
    vec![
        ("regex: open group", "(".to_owned()),
        ("regex: open class", "[a".to_owned()),
        ("regex: look behind", "(?<=a)b".to_owned()),
        ("regex: backwards count", "a{3,2}".to_owned()),
        ("regex: too long", "x".repeat(40_000)),
        (
            "regex: 3,000 groups",
            "(".repeat(3_000) + &")".repeat(3_000),
        ),
        ("regex: thousands of stars", ".*".repeat(5_000) + "x"),
        ("regex: stars of stars", "(a*)*".repeat(3_000)),
    ]
}

fn grammars() -> Vec<(&'static str, String)> {
    let chain: String = (0..20_000).map(|i| format!("r{i}: r{}\n", i + 1)).collect();
    let terminals: String = (0..20_000).map(|i| format!("T{i}: T{}\n", i + 1)).collect();
    let doubling: String = (0..60)
        .map(|i| format!("T{i}: T{0} T{0}\n", i + 1))
        .collect();
    let groups = |n: usize| format!("start: {}\"a\"{}", "(".repeat(n), ")".repeat(n));
    vec![
        ("grammar: empty", String::new()),
        (
            "grammar: no rule of this name",
            "start: undefined".to_owned(),
        ),
        ("grammar: no start", "begin: \"a\"".to_owned()),
        (
            "grammar: open groups",
            "start: ".to_owned() + &"(".repeat(20_000),
        ),
        ("grammar: groups in groups", groups(20_000)),
        ("grammar: a chain of rules", format!("start: r0\n{chain}")),
        (
            "grammar: a chain of terminals",
            format!("start: T0\n{terminals}"),
        ),
        (
            "grammar: terminals that double",
            format!("start: T0\n{doubling}T60: /a*b?/\n"),
        ),
        ("grammar: left to itself", "start: start".to_owned()),
        (
            "grammar: a wrong schema inside",
            "start: %json {\"type\": \"strnig\"}".to_owned(),
        ),
        (
            "grammar: a bound of integers below 64 bits inside",
            "start: %json {\"type\": \"integer\", \"minimum\": -1e30, \"maximum\": -1e30}"
                .to_owned(),
        ),
        (
            "grammar: an import of nothing",
            "%import common.NOPE\nstart: NOPE".to_owned(),
        ),
    ]
}

fn others() -> Vec<Hostile> {
    let many: Vec<String> = (0..9_000).map(|i| format!("c{i}")).collect();
    let function = json!({"name": "f", "strict": true, "parameters": {"type": "object",
        "properties": {"a": {"not": {}}}, "required": ["a"]}});
    let choices = [
        ("choice: nothing", Vec::new()),
        ("choice: too many", many),
        ("choice: too long", vec!["y".repeat(70_000)]),
    ];
    let choices = choices.map(|(name, choice)| Hostile {
        name,
        parameters: json!({"structured_outputs": {"choice": choice}}),
    });
    let mut all = choices.to_vec();
    all.push(Hostile {
        name: "tool: a strict schema that cannot be enforced",
        parameters: json!({"tools": [{"type": "function", "function": function}]}),
    });
    all
}
