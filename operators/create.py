"""Operators created by name from the fields of a config, to simulate measurements.

The fields are the keyword arguments of an operator's `create`. An operator whose `create` has the
keyword `mask` gets the mask itself, and the fields that describe it are those of `create_mask`.
"""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from operators import OPERATORS, LinearOperator
from operators.batch import derive_seed
from operators.masks import make_mask

STUDY = "study_"  # prefix of operators that deviate as the original study's code does
GIVEN = ("seed", "keys", "study")  # keywords of `create` that are not fields of the config
MASK = "mask"  # keyword of `create` for which a mask is drawn


def simulated_names() -> list[str]:
    """Names of the operators that measurements can be simulated with: those with a `create`."""
    return [
        name
        for name, kind in OPERATORS.items()
        if "create" in vars(kind) and not name.startswith(STUDY)
    ]


def is_known(name: str) -> bool:
    """Whether measurements can be simulated with an operator of this name."""
    return name in simulated_names()


def operator_class(name: str) -> type[LinearOperator]:
    """Class of the operator called `name` in a config.

    Raises:
        ValueError: the name is unknown or cannot be simulated; the known ones are listed.
    """
    if not is_known(name):
        raise ValueError(
            f"unknown operator '{name}'; known: {', '.join(sorted(simulated_names()))}"
        )
    return OPERATORS[name]


def create_mask(
    shape: tuple[int, int],
    *,
    seed: int,
    keys: Sequence[str] = (),
    study: bool = False,
    mask: str = "gaussian1d",
    acceleration: float = 4.0,
    center_fraction: float = 0.04,
    num_spokes: int | None = None,
    mask_per_slice: bool = False,
) -> Tensor:
    """Sampling mask described by the fields of a config.

    Args:
        shape: ``(H, W)`` of the images in pixels.
        seed: seed of the mask.
        keys: keys of the samples in the batch, used if `mask_per_slice`.
        study: whether to draw the mask as the original study's code does.
        mask: name of the mask, a key of `operators.masks.MASKS`.
        acceleration: positions (1-D masks: lines) divided by measured ones.
        center_fraction: part of each axis (1-D masks: of W) that is fully measured.
        num_spokes: number of spokes of a radial mask, instead of `acceleration`.
        mask_per_slice: whether each sample gets a mask of its own, seeded by its key.

    Returns:
        bool ``(H, W)``, or ``(B, 1, H, W)`` if `mask_per_slice`.

    Raises:
        ValueError: an unknown mask, or a value that it cannot have.
    """

    def draw(seed: int) -> Tensor:
        return make_mask(
            mask,
            shape,
            seed=seed,
            acceleration=acceleration,
            center_fraction=center_fraction,
            num_spokes=num_spokes,
            study=study,
        )

    if not mask_per_slice:
        return draw(seed)
    return torch.stack([draw(derive_seed(seed, "mask", key)) for key in keys])[:, None]


def fields_of(name: str) -> list[str]:
    """Names of the fields of ``config.operator`` that the operator `name` reads."""
    return list(_defaults(name))


def default_of(name: str, field: str) -> object:
    """Default of a field of ``config.operator``, which None selects; None if there is no default.

    Args:
        name: name of an operator.
        field: name of the field.

    Raises:
        ValueError: the operator is unknown, or cannot be simulated.
    """
    return _defaults(name).get(field)


def given_fields(fields: Mapping, function: Callable) -> dict:
    """Those of `fields` that are not None and that `function` has as keyword arguments."""
    known = _keywords(function)
    return {key: value for key, value in fields.items() if key in known and value is not None}


def _keywords(function: Callable) -> dict[str, object]:
    """Keyword arguments that are fields of a config, with their defaults (None: there is none)."""
    return {
        p.name: None if p.default is p.empty else p.default
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN
    }


def _defaults(name: str) -> dict[str, object]:
    """Fields that the operator `name` reads, with their defaults."""
    own = _keywords(operator_class(name).create)
    return own | _keywords(create_mask) if MASK in own else own


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
    extra = parse_keywords(fields.get("keywords") or "")
    unknown = extra.keys() - set(known)
    if unknown:
        raise ValueError(
            f"{name} has no {', '.join(sorted(unknown))} (operator.keywords); it has: "
            f"{', '.join(known) or 'none'}"
        )
    repeated = sorted(extra.keys() & fields.keys())
    if repeated:
        raise ValueError(
            f"expected operator.keywords without {', '.join(repeated)}, as the config has a field "
            f"of that name; set operator.{repeated[0]}"
        )
    kind = operator_class(name)
    if study:
        kind = OPERATORS.get(f"{STUDY}{name}", kind)
    shape, options = tuple(shape), {**fields, **extra}
    own = given_fields(options, kind.create)
    if MASK in _keywords(kind.create):
        described = given_fields(options, create_mask)
        own[MASK] = create_mask(shape, seed=seed, keys=keys, study=study, **described)
    return kind.create(shape, seed=seed, keys=keys, study=study, **own)


def parse_keywords(text: str) -> dict:
    """A text such as ``factor=2, kind='mean'`` as a dict of Python literals.

    Raises:
        ValueError: the text is not a list of different keywords with literal values.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(k.arg for k in call.keywords):
            raise ValueError("no name")
        found = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(found) < len(call.keywords):
            raise ValueError("a name twice")
        return found
    except (ValueError, SyntaxError):
        raise ValueError(
            f"expected operator.keywords such as factor=2,kind='mean', got {text!r}"
        ) from None
