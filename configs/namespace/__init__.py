"""The project under one name, for use from other folders: ``pip install -e PATH_OF_THE_CHECKOUT``.

    from score_priors import reconstruct, Prior, load_prior, operators, samplers

The package is installed as `score_priors`, next to other packages that may also be called
`datasets`, `models` or `evaluation`: `score_priors.models` is the folder ``models`` of the
checkout. Its files import each other as ``models`` and the like, which here means
`score_priors.models`. Only ``score_priors`` and ``score_priors.NAME`` are added to `sys.modules`,
and nothing to `sys.path`.
"""

import builtins
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent
# folders and files of the checkout that import each other by these names
NAMES = (
    "configs",
    "datasets",
    "evaluation",
    "models",
    "operators",
    "reconstruct",
    "samplers",
    "sde",
    "train",
)

if not (ROOT / "operators" / "__init__.py").is_file():
    raise ImportError(
        f"{__name__} runs from a checkout of the project, and {ROOT} is none; install it with "
        "pip install -e PATH_OF_THE_CHECKOUT"
    )


class Loader(SourceFileLoader):
    """Loader of a file of the checkout, whose imports of `NAMES` mean those of `score_priors`."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module with its own ``__import__``, which its functions keep."""
        module.__builtins__ = _BUILTINS
        super().exec_module(module)


class Finder:
    """Finder of the modules `score_priors.NAME` in the checkout."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of a module `score_priors.NAME`; None for all others (see `MetaPathFinder`)."""
        package, _, rest = name.partition(".")
        if package != __name__ or rest.partition(".")[0] not in NAMES:
            return None
        spec = PathFinder.find_spec(name, path if "." in rest else [str(ROOT)])
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(name, spec.loader.path)
        return spec


def _import(
    name: str,
    globals: Mapping | None = None,
    locals: Mapping | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Replacement of `builtins.__import__` for which `NAMES` are modules of this package."""
    top = name.partition(".")[0]
    if level or top not in NAMES:
        return builtins.__import__(name, globals, locals, fromlist, level)
    found = builtins.__import__(f"{__name__}.{name}", globals, locals, fromlist, 0)
    return found if fromlist else sys.modules[f"{__name__}.{top}"]


_BUILTINS = vars(builtins) | {"__import__": _import}

if Finder not in sys.meta_path:
    sys.meta_path.insert(0, Finder)
for _name in ("operators", "samplers"):
    importlib.import_module(f"{__name__}.{_name}")

from score_priors.reconstruct import (  # noqa: E402
    Prior,
    Result,
    load_prior,
    open_measurement,
    reconstruct,
)

__all__ = [
    "Prior",
    "Result",
    "load_prior",
    "open_measurement",
    "operators",
    "reconstruct",
    "samplers",
]
