"""Operators by name, to simulate measurements with, from the fields of a config."""

import ast
import inspect
from collections.abc import Mapping, Sequence

from operators import OPERATORS, LinearOperator

STUDY = "study_"  # before the name of an operator that deviates as the study's code does
GIVEN = ("seed", "keys", "study")  # keywords of `create` that are no fields


def simulated_names() -> list[str]:
    """The operators that have a `LinearOperator.create` of their own."""
    return [
        name
        for name, kind in OPERATORS.items()
        if "create" in vars(kind) and not name.startswith(STUDY)
    ]


def operator_class(name: str) -> type[LinearOperator]:
    """The operator of a config's `operator.name`.

    Raises:
        ValueError: unknown, or nothing can be simulated with it; the known ones are listed.
    """
    if name not in simulated_names():
        raise ValueError(
            f"unknown operator '{name}'; known: {', '.join(sorted(simulated_names()))}"
        )
    return OPERATORS[name]


def fields_of(name: str) -> list[str]:
    """The fields of a config's `operator` that the operator `name` reads."""
    parameters = inspect.signature(operator_class(name).create).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN]


def create_operator(
    fields: Mapping, shape: tuple[int, int], *, seed: int, keys: Sequence[str], study: bool = False
) -> LinearOperator:
    """The operator that a config describes, for a batch of slices.

    Args:
        fields: ``name``, and what that operator reads; others are for other operators. Fields that
            are None keep the operator's default. ``keywords``, such as "factor=2", has fields
            without a place of their own.
        shape: ``(H, W)`` of the images in pixels.
        seed: of random choices that all slices share.
        keys: of the slices.
        study: whether to deviate as the original study's code does.

    Raises:
        ValueError: unknown operator, field or mask (the known ones are listed), or unfit values.
    """
    name = fields["name"]
    known = fields_of(name)
    options = {key: value for key, value in fields.items() if key in known and value is not None}
    extra = parse_keywords(fields.get("keywords") or "")
    unknown = extra.keys() - set(known)
    if unknown:
        raise ValueError(
            f"{name} has no {', '.join(sorted(unknown))} (operator.keywords); it has: "
            f"{', '.join(known) or 'none'}"
        )
    kind = operator_class(name)
    if study:
        kind = OPERATORS.get(f"{STUDY}{name}", kind)
    return kind.create(tuple(shape), seed=seed, keys=keys, study=study, **options, **extra)


def parse_keywords(text: str) -> dict:
    """Keywords such as ``factor=2, kind='mean'`` as a dict of plain Python values.

    Raises:
        ValueError: anything else.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(k.arg for k in call.keywords):
            raise ValueError("no name")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, SyntaxError):
        raise ValueError(
            f"expected operator.keywords such as factor=2,kind='mean', got {text!r}"
        ) from None
