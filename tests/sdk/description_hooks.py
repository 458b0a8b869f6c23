"""What schemathesis must know of this API (see test_description.py)."""

import schemathesis

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
        if "/v1/responses" in case.path and "'input'" in response.text:
            return  # It may be missing if a conversation is gone on from, and only then.
        if code == "missing_required_parameter" and ".content'" in response.text:
            return  # It may be missing beside calls or a refusal, and only then.
        assert code not in WRONG_OF_A_VALID_BODY, response.text
