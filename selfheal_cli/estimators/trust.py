"""Which types a skops file may build: loading one runs that type's own code.

skops loads the plain ones of scikit-learn, numpy and scipy by itself. The others were named and
trusted when the model was wrapped. Their names come from the registry, where others may write: so
what is of no library for models must have been allowed on this machine, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from selfheal_cli.errors import ModelError

LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost", "imblearn", "numpy", "scipy")
DATA = ("collections.OrderedDict", "numpy.dtype")  # hold values, and run nothing of a file's
# what a partial calls is listed by itself
PLAIN = (*DATA, "functools.partial", "sklearn.utils.validation.check_array")


def require_trusted(
    types: Iterable[str], trusted: Collection[str], is_allowed: Callable[[str], bool]
) -> None:
    """Raise `ModelError` for a type in a file that was not trusted when it was wrapped, or that is
    of another library and that nobody has allowed here.
    """
    for name in types:
        if name not in trusted and name not in DATA:
            raise ModelError(
                f"the model's file builds the type {name}, which was not trusted when it was "
                "wrapped: wrap it again"
            )
        if not (is_of_library(name) or is_allowed(name)):
            raise ModelError(
                f"the model's file builds the type {name}, which nobody has allowed to run here: "
                f"if you trust it, give --allow-module {name.partition('.')[0]}"
            )


def require_code(names: Iterable[str], is_allowed: Callable[[str], bool]) -> None:
    """Raise `ModelError` for code that comes with a model and that nobody has allowed here."""
    for name in names:
        if not is_allowed(name):
            raise ModelError(
                "the model runs code or pickles of its own when it is loaded, which nobody has "
                f"allowed here: if you trust it, give --allow-module {name}"
            )


def is_of_library(name: str) -> bool:
    """Whether a class is of a library that models are made with; a function could do anything."""
    is_class = name.rpartition(".")[2].lstrip("_")[:1].isupper()
    return name in PLAIN or (is_class and name.partition(".")[0] in LIBRARIES)


def require_asked(types: Iterable[str], trusted: Collection[str], where: str) -> None:
    """Raise `ModelError` that names the types which the user has to trust, and how."""
    missing = [name for name in types if name not in trusted and name not in DATA]
    if missing:
        options = " ".join(f"--trust {name}" for name in missing)
        raise ModelError(
            f"{where}: builds {len(missing)} type{'s' * (len(missing) > 1)} that skops does not "
            "load by itself, since their own code runs when it is loaded; if you trust "
            f"{'them' if len(missing) > 1 else 'it'}, give {options}"
        )
