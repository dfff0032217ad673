"""A version as an ordinary MLflow model: the folder that any MLflow client can load and serve."""

from __future__ import annotations

import json
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from selfheal_cli.model.extent import is_one_tensor
from selfheal_cli.registry.carried import ENTRY, Carried, carried
from selfheal_cli.registry.layout import (
    ADAPTER_FILE,
    BASE_DOCUMENT_FILE,
    BASE_WEIGHTS_FILE,
    CODE_FILE,
    LINK_FILE,
    OUTPUTS,
    REQUIREMENTS_FILE,
    SEGMENTS_FILE,
)

__all__ = ["ADAPTER_FILE", "BASE_DOCUMENT_FILE", "BASE_WEIGHTS_FILE"]

# MLflow asks for both, whichever of the two it makes an environment with
CONDA_FILE, PYTHON_FILE = "conda.yaml", "python_env.yaml"
OWN = ("model_id", "model_uuid", "utc_time_created")  # what each version says of itself


def write_version(
    folder: Path,
    *,
    adapter: bytes,
    adapter_sha256: str,
    base_id: str,
    base_sha256: str,
    document: str,
    threshold: float,
    model_id: str | None,
    run_id: str,
    segments: bytes = b"",
) -> None:
    """Fill ``folder`` with the adapter, the link to its base, and MLflow's own description.

    ``document`` is the base's; ``model_id`` is None where no store has it. Where ``segments`` says
    which adapters they have, ``adapter`` is that of all rows.
    """
    if segments:
        (folder / SEGMENTS_FILE).write_bytes(segments)
    (folder / ADAPTER_FILE).write_bytes(adapter)
    link = {
        "adapter_sha256": adapter_sha256,
        "base": base_id,
        "base_sha256": base_sha256,
        "threshold": threshold,
    }
    (folder / LINK_FILE).write_text(json.dumps(link, indent=1), encoding="utf-8")
    code = carried(document)
    (folder / CODE_FILE).write_bytes(code.code)
    for name, text in environment(code).items():
        (folder / name).write_text(text, encoding="utf-8")
    own = Model(model_id=model_id).to_dict()
    text = _described(document, run_id) + _as_yaml({name: own[name] for name in OWN if name in own})
    (folder / "MLmodel").write_text(text, encoding="utf-8")


@lru_cache(maxsize=8)
def _described(document: str, run_id: str) -> str:
    """What MLflow's description says of every version of a run: most of it is the signature, which
    takes longer to write out than the rest of a version.
    """
    description = describe(json.loads(document), run_id=run_id, code=carried(document)).to_dict()
    return _as_yaml({name: value for name, value in description.items() if name not in OWN})


def input_names(folder: Path) -> tuple[str, ...] | None:
    """What a stored model's signature calls its columns; None where it says nothing of columns."""
    try:
        schema = Model.load(str(folder)).get_input_schema()  # type: ignore[no-untyped-call]
    except (MlflowException, OSError, ValueError, TypeError):
        return None
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    return tuple(schema.input_names())


def describe(
    document: dict[str, Any], run_id: str | None = None, code: Carried | None = None
) -> Model:
    """A version as MLflow's own description has it; ``document`` is its base's.

    Without ``code`` it is one that this package loads.
    """
    described = Model(run_id=run_id, signature=signature(document))
    described.add_flavor(
        "python_function",
        loader_module=code.loader if code else ENTRY,
        python_version=platform.python_version(),
        env={"conda": CONDA_FILE, "virtualenv": PYTHON_FILE},
        **({"code": CODE_FILE} if code else {}),
    )
    return described


def _as_yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, default_flow_style=False)


def environment(code: Carried) -> dict[str, str]:
    """The files that say what a version needs to be loaded; nothing of ours is among it."""
    python_env = {
        "python": platform.python_version(),
        "build_dependencies": [],
        "dependencies": [f"-r {REQUIREMENTS_FILE}"],
    }
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [
            f"python={platform.python_version()}", "pip", {"pip": list(code.requirements)}
        ],
    }  # fmt: skip
    return {
        CONDA_FILE: yaml.safe_dump(conda, sort_keys=False),
        REQUIREMENTS_FILE: "\n".join(code.requirements) + "\n",
        PYTHON_FILE: yaml.safe_dump(python_env, sort_keys=False),
    }


def tensor_shape(document: dict[str, Any]) -> tuple[int, ...] | None:
    """Of one row, where a model takes one large tensor whose values nobody named."""
    foreign = document["network"].get("foreign")
    if not is_one_tensor(foreign) or "model" in document["encoding"]:
        return None
    names = (column["name"] for column in document["encoding"]["columns"])
    nameless = all(name == f"x{place}" for place, name in enumerate(names))
    return tuple(foreign["shape"]) if nameless else None


def _columns(encoding: dict[str, Any]) -> list[ColSpec | TensorSpec]:
    any_text = encoding.get("contract", 1) == 2
    return [
        ColSpec(
            # MLflow refuses whole numbers for a double, and numbers and truth values for a text;
            # the encoding takes them all
            AnyType()  # type: ignore[no-untyped-call]
            if any_text or column["kind"] != "categorical"
            else DataType.string,
            name=column["name"],
            required=not any_text and column["kind"] == "categorical",
        )
        for column in encoding["columns"]
    ]


def signature(document: dict[str, Any]) -> ModelSignature:
    """Raw columns in, or one tensor; out one probability a row, or one for each of K classes.

    With the parameter ``output="label"`` the version decides, at its own threshold.
    """
    shape = tensor_shape(document)
    inputs = _columns(document["encoding"])
    if shape is not None:
        from numpy import dtype

        inputs = [TensorSpec(dtype("float32"), (-1, *shape))]
    classes = len(document["labels"])
    probabilities: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.float, name=None if classes == 2 else label)
        for label in (document["labels"] if classes > 2 else document["labels"][:1])
    ]
    output = ParamSpec("output", DataType.string, OUTPUTS[0])
    return ModelSignature(
        inputs=Schema(inputs), outputs=Schema(probabilities), params=ParamSchema([output])
    )
