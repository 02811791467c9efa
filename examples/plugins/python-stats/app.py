"""Statistics of numbers. An example of a plugin in Python: docs/plugins.md says more.

Each call runs in an instance of its own: what a tool keeps in a global is gone in the next call, and what should
stay goes to the store (`kv_get`, `kv_set`). There are no files, sockets, threads, environment or randomness.
"""

import json
import statistics
from typing import Any, Callable

from componentize_py_types import Err
from wit_world.exports import Tools as ToolsBase
from wit_world.imports import host
from wit_world.imports.types import (
    CallContext,
    CallError_Failed,
    CallError_InvalidParams,
    CallError_UnknownTool,
    Content_Text,
    Outcome,
    Outcome_Complete,
    Tool,
    ToolResult,
)

NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 10000}
LAST = "last"

# Digits after the point; the installation may say otherwise.
settings = {"digits": 3}


def rounded(number: float) -> float:
    return round(number, settings["digits"])


def describe(arguments: dict[str, Any]) -> dict[str, Any]:
    numbers = arguments["numbers"]
    found = {
        "count": len(numbers),
        "mean": rounded(statistics.fmean(numbers)),
        "median": rounded(statistics.median(numbers)),
        "deviation": rounded(statistics.pstdev(numbers)),
    }
    host.kv_set(LAST, json.dumps(found).encode())
    return found


def last(_: dict[str, Any]) -> dict[str, Any]:
    kept = host.kv_get(LAST)
    if kept is None:
        raise ValueError("nothing was described yet")
    return json.loads(kept)


def schema(properties: dict[str, Any]) -> dict[str, Any]:
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# Name to description, schema of the arguments, function and annotations.
TOOLS: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]], dict[str, bool]]] = {
    "describe": (
        "Count, mean, median and standard deviation of numbers.",
        schema({"numbers": NUMBERS}),
        describe,
        {"destructiveHint": False, "openWorldHint": False},
    ),
    "last": ("What was described last.", schema({}), last, {"readOnlyHint": True, "openWorldHint": False}),
}


class Tools(ToolsBase):
    def config_schema(self) -> str | None:
        digits = {"type": "integer", "minimum": 0, "maximum": 12}
        return json.dumps({"type": "object", "properties": {"digits": digits}, "additionalProperties": False})

    def configure(self, config: str) -> None:
        given = json.loads(config)
        unknown = set(given) - set(settings)
        if unknown:
            raise Err(f"there is no setting `{sorted(unknown)[0]}`")
        digits = given.get("digits", settings["digits"])
        if not isinstance(digits, int) or isinstance(digits, bool) or not 0 <= digits <= 12:
            raise Err("`digits` is a number from 0 to 12")
        settings["digits"] = digits

    def list_tools(self) -> list[Tool]:
        return [
            Tool(
                name=name,
                title=None,
                description=description,
                input_schema=json.dumps(arguments),
                output_schema=None,
                annotations=json.dumps(annotations),
            )
            for name, (description, arguments, _, annotations) in TOOLS.items()
        ]

    def call_tool(self, context: CallContext, name: str, arguments: str) -> Outcome:
        if name not in TOOLS:
            raise Err(CallError_UnknownTool())
        _, _, function, _ = TOOLS[name]
        try:
            found = function(json.loads(arguments))
        except (KeyError, TypeError) as why:
            raise Err(CallError_InvalidParams(str(why))) from why
        except ValueError as why:
            # For the model to read: it can do better next time.
            return Outcome_Complete(ToolResult(content=[Content_Text(str(why))], structured=None, is_error=True))
        except Err as why:
            raise Err(CallError_Failed(str(why.value))) from why
        text = json.dumps(found)
        return Outcome_Complete(ToolResult(content=[Content_Text(text)], structured=text, is_error=False))
