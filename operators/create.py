"""Operators created by name from the fields of a config, to simulate measurements."""

import ast
import inspect
from collections.abc import Mapping, Sequence

from operators import OPERATORS, LinearOperator

STUDY = "study_"  # prefix of operators that deviate as the original study's code does
GIVEN = ("seed", "keys", "study")  # keywords of `create` that are not fields of the config


def simulated_names() -> list[str]:
    """Names of the operators that measurements can be simulated with: those with a `create`."""
    return [
        name
        for name, kind in OPERATORS.items()
        if "create" in vars(kind) and not name.startswith(STUDY)
    ]


def operator_class(name: str) -> type[LinearOperator]:
    """Class of the operator called `name` in a config.

    Raises:
        ValueError: the name is unknown or cannot be simulated; the known ones are listed.
    """
    if name not in simulated_names():
        raise ValueError(
            f"unknown operator '{name}'; known: {', '.join(sorted(simulated_names()))}"
        )
    return OPERATORS[name]


def fields_of(name: str) -> list[str]:
    """Names of the fields of ``config.operator`` that the operator `name` reads."""
    parameters = inspect.signature(operator_class(name).create).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN]


def default_of(name: str, field: str) -> object:
    """What None stands for in a field of ``config.operator``; None if the operator has no default.

    Raises:
        ValueError: the operator is unknown, or cannot be simulated.
    """
    parameter = inspect.signature(operator_class(name).create).parameters.get(field)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def create_operator(
    fields: Mapping, shape: tuple[int, int], *, seed: int, keys: Sequence[str], study: bool = False
) -> LinearOperator:
    """Operator described by a config, for a batch of slices.

    Args:
        fields: the fields of ``config.operator``: ``name`` and those that the operator reads;
            others are ignored, and None selects the operator's default. ``keywords``, such as
            "factor=2", holds arguments that have no field of their own.
        shape: ``(H, W)`` of the images in pixels.
        seed: seed of the random choices that all slices share.
        keys: keys of the slices, to seed random choices per slice.
        study: whether to deviate as the original study's code does.

    Raises:
        ValueError: an unknown operator, field or mask (the known ones are listed), or an invalid
            value.
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
    """A text such as ``factor=2, kind='mean'`` as a dict of Python literals.

    Raises:
        ValueError: the text is not a list of keywords with literal values.
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
