"""What schemathesis must know of this API (see test_description.py)."""

import jsonschema
import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection

# Of a body that its schema allows, these would say that the schema is wrong. Other errors are of
# values that no schema can tell, such as token ids that the model does not have.
WRONG_OF_A_VALID_BODY = {
    "unknown_parameter",
    "invalid_type",
    "missing_required_parameter",
    "empty_array",
    "decimal_below_min_value",
    "decimal_above_max_value",
}


@schemathesis.hook
def before_call(context, case, kwargs):
    # Of a model that nobody serves there would be nothing to test but its 404.
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "SmolLM2-135M-Instruct"
    # A request that is told to end at once ends with 504, as it should.
    if case.headers:
        case.headers.pop("x-request-timeout-ms", None)


@schemathesis.check
def the_description_is_true(ctx, response, case):
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if is_valid and response.status_code == 400:
        code = response.json()["error"]["code"]
        assert code not in WRONG_OF_A_VALID_BODY, response.text


@schemathesis.check
def wrong_requests_are_refused(ctx, response, case):
    """As `negative_data_rejection`, but what was meant to be wrong must be: a body that lacks one of several
    properties of which any will do is still right."""
    try:
        return negative_data_rejection(ctx, response, case)
    except Exception:
        if is_allowed(case):
            return None
        raise


def is_allowed(case):
    """Whether a body, and nothing else of this case, was made to be wrong, and is right."""
    components = case.meta.components if case.meta else {}
    wrong = [place.name for place, info in components.items() if info.mode.is_negative]
    if wrong != ["BODY"] or case.media_type != "application/json":
        return False
    document = case.operation.schema.raw_schema
    content = document["paths"][case.operation.path][case.method.lower()]["requestBody"]["content"]
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    return jsonschema.Draft202012Validator(schema).is_valid(case.body)
