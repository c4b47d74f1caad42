"""Every route asked for what its schema allows, and for what it does not."""

from __future__ import annotations

from typing import Any

import pytest
from searchable import Searchable
from serving import searching_app

from emb.search.server.settings import Settings

_REFUSED_BY_MEANING = "positive_data_acceptance"  # prompts, models, metadata and dims that only this model knows


@pytest.fixture(scope="module")
def app(searchable: Searchable) -> Any:
    return searching_app(searchable.bundle, searchable.index, settings=Settings("both", kind="query", only="query"))


def test_every_answer_that_openai_and_others_get_is_in_the_schema(app: Any) -> None:
    schema = app.openapi()
    told = {
        (path, status, next(iter(answer.get("content", {"": {}}).values())).get("schema", {}).get("$ref", ""))
        for path, methods in schema["paths"].items()
        for method in methods.values()
        for status, answer in method["responses"].items()
    }
    shapes = {"/v1/": "OpenAIRefused", "/embed": "Refused", "/search": "Refused"}
    for start, shape in shapes.items():
        wrong = {ref for path, status, ref in told if path.startswith(start) and status not in ("200", "204")}
        assert wrong == {f"#/components/schemas/{shape}"}
    assert ("/health", "200", "") in told
    assert "HTTPValidationError" not in str(schema["paths"])


@pytest.mark.interop
def test_no_request_that_a_schema_can_make_breaks_a_route(app: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings

    mode = schemathesis.GenerationMode
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = schemathesis.checks
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for each in (mode.POSITIVE, mode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=each)

            @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=strategy)
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                excluded = [getattr(checks, _REFUSED_BY_MEANING)] if hasattr(checks, _REFUSED_BY_MEANING) else []
                case.call_and_validate(excluded_checks=excluded)

            try:
                ask()
            except Exception as error:
                if "Unsatisfiable" not in type(error).__name__:  # a route without a body has nothing wrong to be asked
                    raise
    assert asked > 100
