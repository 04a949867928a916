"""The API server's door in miniature: what it does with an object of a CustomResourceDefinition.

In its order: strict field validation (what `kubectl` asks for), pruning of nulls, defaults, the
structural schema, and the `x-kubernetes-validations` rules where the schema holds. Patterns are
RE2's, so `$` is the end of the text and not also the place before a last newline.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import celpy
import jsonschema
from celpy import celtypes

_EXACT = Context(prec=400)
_LARGEST = Decimal(2**63 - 1)
_POWERS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


class _Quantity(Decimal):
    """What `quantity()` gives in CEL."""


def quantity(text: str) -> _Quantity:
    """`resource.ParseQuantity`: rounded up to nano, and capped at 2^63 - 1."""
    found = re.fullmatch(r"([0-9.]+)(?:([a-zA-Z]{0,2})|[eE]([+-]?[0-9]+))", str(text))
    if found is None:
        raise celpy.evaluation.CELEvalError(f"no quantity: {text!r}")
    factor = Decimal(f"1e{found[3]}") if found[3] else _POWERS[found[2]]
    exact = min(_EXACT.multiply(Decimal(found[1]), factor), _LARGEST)
    return _Quantity(exact.quantize(Decimal("1e-9"), ROUND_CEILING, _EXACT))


def _compare_to(left: _Quantity, right: _Quantity) -> celtypes.IntType:
    return celtypes.IntType((left > right) - (left < right))


_CEL = celpy.Environment()
_PROGRAMS: dict[str, celpy.Runner] = {}


def holds(rule: str, value: Any) -> bool:
    """Evaluate one rule on `self`."""
    program = _PROGRAMS.get(rule)
    if program is None:
        functions: dict[str, Any] = {"quantity": quantity, "compareTo": _compare_to}
        program = _PROGRAMS[rule] = _CEL.program(_CEL.compile(rule), functions=functions)
    verdict = program.evaluate({"self": celpy.adapter.json_to_cel(value)})
    assert isinstance(verdict, celtypes.BoolType | bool), f"{rule} gives {verdict!r}"
    return bool(verdict)


def admit(document: dict[str, Any], crd: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the complaints of the door, and the object as it would be stored."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    stored = deepcopy(document)
    complaints = [f"unknown field {path}" for path in _unknown(stored, schema, "")]
    stored = fill(stored, schema)
    complaints += [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Validator(schema).iter_errors(stored)
    ]
    if not complaints:
        complaints = list(_broken_rules(stored, schema))
    return complaints, stored


def fill(value: Any, schema: dict[str, Any]) -> Any:
    """Drop nulls and fill in defaults."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        kept = {
            key: item
            for key, item in value.items()
            if item is not None or not (key in properties or rest)
        }
        for key, inner in properties.items():
            if key not in kept and "default" in inner:
                kept[key] = deepcopy(inner["default"])
        return {key: fill(item, properties.get(key) or rest or {}) for key, item in kept.items()}
    if isinstance(value, list):
        return [fill(item, schema.get("items", {})) for item in value]
    return value


def _unknown(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    if isinstance(value, dict):
        for key, item in value.items():
            inner = properties.get(key, rest)
            if inner is not None:
                yield from _unknown(item, inner, f"{path}.{key}")
            elif properties:
                yield f"{path}.{key}"
    elif isinstance(value, list):
        for item in value:
            yield from _unknown(item, schema.get("items", {}), f"{path}[]")


def _broken_rules(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if not holds(rule["rule"], value):
            yield rule["message"]
    if isinstance(value, dict):
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if inner:
                yield from _broken_rules(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _broken_rules(item, schema.get("items", {}))


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value, re.ASCII):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


def _int_or_string(_: Any, on: bool, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if on and (isinstance(value, bool) or not isinstance(value, int | str)):
        yield jsonschema.ValidationError(f"{value!r} is neither integer nor string")


Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft4Validator,
    {"pattern": _pattern, "x-kubernetes-int-or-string": _int_or_string},
    # Draft 4 would not take 2.0 for an integer, which Kubernetes does.
    type_checker=jsonschema.Draft6Validator.TYPE_CHECKER,
)
