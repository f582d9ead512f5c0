"""The OpenAPI schema: valid by an independent validator, and it holds the whole contract."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT4

GENERATE = ("post", "/api/images/generate")
CREATE = ("post", "/api/images/")
LIST = ("get", "/api/images/")
RETRIEVE = ("get", "/api/images/{image_id}")
DELETE = ("delete", "/api/images/{image_id}")
CHANGE = ("patch", "/api/images/{image_id}")

#: Status -> codes, as the contract has them for making an image.
GENERATION_ERRORS = {
    "400": {"invalid_request", "content_rejected"},
    "401": {"not_authenticated", "authentication_failed"},
    "403": {"permission_denied"},
    "409": {"request_in_progress"},
    "413": {"payload_too_large"},
    "415": {"unsupported_media_type"},
    "422": {"idempotency_key_reused"},
    "500": {"internal_error", "storage_error"},
    "502": {
        "provider_error",
        "provider_unreachable",
        "provider_bad_response",
        "provider_no_image",
        "provider_bad_image",
    },
    "503": {
        "provider_not_configured",
        "provider_auth",
        "provider_model_unavailable",
        "provider_quota_exhausted",
        "provider_rate_limited",
        "provider_overloaded",
        "too_many_generations",
    },
    "504": {"provider_timeout"},
}


@pytest.fixture(scope="module")
def schema() -> Any:
    """The schema as it is served."""
    answer = Client().get("/api/schema/", headers={"accept": "application/vnd.oai.openapi+json"})
    assert answer.status_code == 200
    return json.loads(answer.content)


def operation(schema: Any, call: tuple[str, str]) -> Any:
    method, path = call
    return schema["paths"][path][method]


def codes(response: Any) -> set[str]:
    """The codes of the examples of an error."""
    return {example["value"]["code"] for example in response["content"]["application/json"]["examples"].values()}


def examples(schema: Any) -> Iterator[tuple[Any, Any]]:
    """Every example of a request or an answer, with the schema that it is to follow."""
    for path in schema["paths"].values():
        for documented in path.values():
            for holder in (documented.get("requestBody", {}), *documented["responses"].values()):
                for content in holder.get("content", {}).values():
                    for example in content.get("examples", {}).values():
                        yield example["value"], content["schema"]


def test_an_independent_validator_finds_nothing_wrong(schema: Any) -> None:
    assert list(OpenAPIV30SpecValidator(schema).iter_errors()) == []


def test_every_call_of_the_contract_is_there_once(schema: Any) -> None:
    calls = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert calls == {GENERATE, CREATE, LIST, RETRIEVE, CHANGE, DELETE}


@pytest.mark.parametrize("call", [GENERATE, CREATE])
def test_every_error_of_a_generation_has_an_example(schema: Any, call: tuple[str, str]) -> None:
    responses = operation(schema, call)["responses"]
    for status, expected in GENERATION_ERRORS.items():
        assert expected <= codes(responses[status]), status


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (LIST, {"400": "invalid_request", "401": "not_authenticated", "405": "method_not_allowed"}),
        (RETRIEVE, {"404": "not_found", "401": "not_authenticated", "405": "method_not_allowed"}),
        (CHANGE, {"400": "invalid_request", "404": "not_found", "403": "permission_denied"}),
        (DELETE, {"404": "not_found", "403": "permission_denied", "500": "storage_error"}),
    ],
)
def test_the_errors_of_the_other_calls_have_examples(schema: Any, call: Any, expected: dict[str, str]) -> None:
    for status, code in expected.items():
        assert code in codes(operation(schema, call)["responses"][status])


def test_every_error_has_the_one_body(schema: Any) -> None:
    for call in (GENERATE, CREATE, LIST, RETRIEVE, CHANGE, DELETE):
        for status, response in operation(schema, call)["responses"].items():
            if int(status) >= 400:
                content = response["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ImagesError"}, (call, status)
    body = schema["components"]["schemas"]["ImagesError"]
    assert set(body["required"]) == {"error", "code", "retryable", "timestamp", "details"}


def test_every_example_follows_its_schema(schema: Any) -> None:
    registry: Registry[Any] = Registry().with_resource("urn:api", DRAFT4.create_resource(schema))
    count = 0
    for value, reference in examples(schema):
        absolute = json.loads(json.dumps(reference).replace('"#/', '"urn:api#/'))
        errors = [error.message for error in OAS30Validator(absolute, registry=registry).iter_errors(value)]
        assert errors == [], value
        count += 1
    assert count > 50


@pytest.mark.parametrize(
    ("call", "status", "header"),
    [
        (GENERATE, "200", "Idempotency-Replayed"),
        (CREATE, "201", "Idempotency-Replayed"),
        (CREATE, "201", "Location"),
        (GENERATE, "409", "Retry-After"),
        (GENERATE, "503", "Retry-After"),
        (GENERATE, "401", "WWW-Authenticate"),
        (DELETE, "401", "WWW-Authenticate"),
        (LIST, "401", "WWW-Authenticate"),
    ],
)
def test_the_headers_of_answers_are_there(schema: Any, call: Any, status: str, header: str) -> None:
    assert header in operation(schema, call)["responses"][status]["headers"]


def test_requests_say_what_they_take(schema: Any) -> None:
    def names(call: tuple[str, str], place: str) -> set[str]:
        return {each["name"] for each in operation(schema, call).get("parameters", []) if each["in"] == place}

    assert {"Idempotency-Key"} <= names(GENERATE, "header") & names(CREATE, "header")
    assert {"contentItemId", "variant", "status", "page", "pageSize"} == names(LIST, "query")
    [image_id] = operation(schema, DELETE)["parameters"]
    assert "contentItemId/filename" in image_id["description"]
    assert len(image_id["examples"]) == 2
    wanted = schema["components"]["schemas"]["ImagesGenerate"]
    assert set(wanted["required"]) == {"contentItemId", "title"}
    assert wanted["properties"]["description"]["nullable"]
    assert wanted["properties"]["context"]["maxLength"] == 4000
    body = operation(schema, CHANGE)["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert schema["components"]["schemas"][body.rpartition("/")[2]]["properties"].keys() == {"altText"}


def test_a_token_is_given_as_it_is_and_no_cookie_is_asked_for(schema: Any) -> None:
    assert operation(schema, GENERATE)["security"] == [{"imagesToken": []}, {}]
    assert schema["components"]["securitySchemes"] == {"imagesToken": {"type": "http", "scheme": "bearer"}}


def test_swagger_ui_asks_nobody_on_the_internet(client: Client) -> None:
    page = client.get("/api/docs/").content.decode()
    assert '"validatorUrl": null' in page
    assert re.findall(r"""["'(](?:https?:)?//[^"')\s]+""", page) == []
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) >= 4
    for asset in assets:
        assert client.get(asset).status_code == 200, asset
