"""JSON schemas drawn at random, such that an answer that matches can be short."""

import random

LETTERS = "abcdefgh"
PATTERNS = [r"^[a-c]{2}$", r"^\d{1,3}$", r"^(red|green)-[0-9]$", r"^[A-Z][a-z]{0,3}$", r"^a+b?$", r"^\w{2}\.\w$"]
FORMATS = ["date", "time", "uuid", "ipv4"]


class Draw:
    """One schema, with definitions that its parts refer to."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.definitions = {}

    def schema(self) -> dict:
        schema = self.any(3)
        if self.definitions:
            schema = {**schema, "$defs": self.definitions}
        return schema

    def any(self, depth: int) -> dict:
        leaves = [self.enum, self.string, self.number, self.constant, self.simple]
        branches = [self.object, self.object, self.array, self.tuple, self.union, self.reference, self.recursive]
        kinds = leaves + branches * 2 if depth > 0 else leaves
        return self.random.choice(kinds)(depth - 1)

    def enum(self, _) -> dict:
        values = ["red", "a \"quoted\" text", "ümläut", 7, -1.5, None, True, "", "line\nend"]
        return {"enum": self.random.sample(values, self.random.randint(1, 4))}

    def constant(self, _) -> dict:
        return {"const": self.random.choice(["x", 12, None, False, [1, "a"], {"k": 1}])}

    def simple(self, _) -> dict:
        return {"type": self.random.choice(["boolean", "null", ["boolean", "null"]])}

    def string(self, _) -> dict:
        kind = self.random.randrange(3)
        if kind == 0:
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if kind == 1:
            return {"type": "string", "format": self.random.choice(FORMATS)}
        least = self.random.randint(0, 2)
        return {"type": "string", "minLength": least, "maxLength": least + self.random.randint(0, 5)}

    def number(self, _) -> dict:
        least = self.random.randint(-50, 50)
        schema = {"type": "integer", "minimum": least, "maximum": least + self.random.randint(0, 500)}
        kind = self.random.randrange(4)
        if kind == 0:
            return schema | {"multipleOf": self.random.choice([1, 5])} | {"minimum": 0, "maximum": 100}
        if kind == 1:
            return {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.25}
        return schema

    def object(self, depth: int) -> dict:
        names = self.random.sample(["a", "b", "some name", "ü", "d_e"], self.random.randint(1, 3))
        required = [name for name in names if self.random.random() < 0.6]
        schema = {"type": "object", "properties": {name: self.any(depth) for name in names}, "required": required}
        if self.random.random() < 0.7:
            schema["additionalProperties"] = False
        return schema

    def array(self, depth: int) -> dict:
        least = self.random.randint(0, 1)
        return {"type": "array", "items": self.any(depth), "minItems": least,
                "maxItems": least + self.random.randint(0, 2)}

    def tuple(self, depth: int) -> dict:
        items = [self.any(depth) for _ in range(self.random.randint(1, 2))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def union(self, depth: int) -> dict:
        return {"anyOf": [self.any(depth) for _ in range(self.random.randint(2, 3))]}

    def reference(self, depth: int) -> dict:
        name = f"part{len(self.definitions)}"
        self.definitions[name] = {}
        self.definitions[name] = self.any(depth)
        return {"$ref": f"#/$defs/{name}"}

    def recursive(self, depth: int) -> dict:
        name = f"node{len(self.definitions)}"
        self.definitions[name] = {}
        self.definitions[name] = {
            "type": "object", "additionalProperties": False, "required": ["value", "next"],
            "properties": {"value": self.any(0), "next": {"anyOf": [{"type": "null"}, {"$ref": f"#/$defs/{name}"}]}},
        }
        return {"$ref": f"#/$defs/{name}"}
