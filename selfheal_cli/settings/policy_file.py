"""Policies as files: YAML in ``registry_policies/``, or a thresholds file of an earlier export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from selfheal_cli.config import Policy, checked
from selfheal_cli.errors import ConfigurationError, PolicyError, one_line

FOLDER = Path("registry_policies")
PACKAGE = Path(__file__).resolve().parents[1]
# installed inside the package, and beside it in a checkout
SHIPPED = next(
    (folder / FOLDER for folder in (PACKAGE, PACKAGE.parent) if (folder / FOLDER).is_dir()),
    PACKAGE / FOLDER,
)
NOTE = "Edit values and restart with --set policy.thresholds=FILE to tune risk tolerance"
MAX_BYTES = 65_536
LONGEST = 256  # characters of a name that may be a file's; beyond, the system complains


def available() -> dict[str, Path]:
    """Policies by name: those of this folder first, then those that selfheal ships."""
    by_name: dict[str, Path] = {}
    for folder in (FOLDER, SHIPPED):
        for path in sorted(folder.glob("*.yaml")):
            by_name.setdefault(path.stem, path)
    return dict(sorted(by_name.items()))


def load(name_or_path: str) -> Policy:
    """A policy by name or file; raises `PolicyError` naming file, key and value."""
    known = available()
    if name_or_path in known:
        return read(known[name_or_path])
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or (len(name_or_path) < LONGEST and path.exists()):
        return read(path)
    raise PolicyError(f"no policy '{name_or_path}'; known: {', '.join(known)}; or give a YAML file")


def read(path: Path) -> Policy:
    """A policy file, every key checked."""
    return _policy(_mapping(path), path)


def read_thresholds(path: Path, policy: Policy) -> Policy:
    """``policy`` with the values of an exported ``threshold_config.json`` put over it."""
    values = {name: value for name, value in _mapping(path).items() if name != "note"}
    return _policy({**policy.model_dump(), **values}, path)


def thresholds(policy: Policy) -> dict[str, Any]:
    """What ``threshold_config.json`` holds: the article's three keys first, then the rest."""
    first = ("rollback_f1_drop", "rollback_acc_drop", "health_window")
    values = policy.model_dump(exclude={"description"})
    return {name: values[name] for name in first} | values | {"note": NOTE}


def _policy(values: Mapping[str, Any], path: Path) -> Policy:
    try:
        return checked(Policy, values, where=str(path))
    except ConfigurationError as exc:
        raise PolicyError(str(exc)) from exc.__cause__


def _mapping(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PolicyError(f"{path}: larger than {MAX_BYTES} bytes; this is no policy")
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError as exc:
        raise PolicyError(f"{path}: no such file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(f"{path}: cannot be read ({exc})") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        reason = one_line(exc)
        raise PolicyError(f"{path}: does not parse ({reason})") from exc
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise PolicyError(f"{path}: expected keys with values, such as 'rollback_f1_drop: 0.08'")
    return document
