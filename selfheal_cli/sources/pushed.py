"""What is normal, as a program says it: rows and their classes, kept on disk beside the spool."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.records import Rows
from selfheal_cli.workspace import OWNER_ONLY, OWNERS_FOLDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import LabelArray

BLOCK_ROWS = 65_536
NAME = "reference.npz"
Vocabulary = Mapping[str, tuple[str, ...]]  # the texts of a column, each at its place


@dataclass(frozen=True, slots=True)
class Reference:
    """What is normal: rows (n, d) and their classes (n,), positions in ``labels``.

    ``shape`` is a row's own, ``settings`` the JSON of the run that heals by them. Of a column in
    the ``vocabulary`` the rows hold places in it, -1 where the text is missing.
    """

    x: NDArray[np.floating[Any]]
    y: LabelArray
    names: tuple[str, ...]
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    settings: str = ""
    vocabulary: Vocabulary = field(default_factory=dict)

    @property
    def contract(self) -> None:
        """None: nothing is known of what a row must be, but that it is numbers."""

    def training(self) -> Iterator[Rows]:
        """The rows, in blocks."""
        for at in range(0, len(self.y), BLOCK_ROWS):
            x, y = self.x[at : at + BLOCK_ROWS], self.y[at : at + BLOCK_ROWS]
            wide = x.astype(np.float64)
            columns = {name: self._values(name, wide[:, i]) for i, name in enumerate(self.names)}
            yield Rows(x, y, columns)

    def _values(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if name not in self.vocabulary:
            return values
        # a missing text is the last one's neighbour: -1 counts from the end
        return np.array([*self.vocabulary[name], None], dtype=object)[values.astype(np.int64)]

    def save(self, folder: Path) -> None:
        """Write it to ``folder``, whole or not at all, unless the same is there."""
        path = folder / NAME
        if path.exists() and self._is_at(path):
            return
        folder.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
        beside = path.with_name(f"{NAME}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_WRONLY, OWNER_ONLY), "wb") as file:
            np.savez(
                file, x=self.x, y=self.y, names=np.array(self.names), labels=np.array(self.labels),
                shape=np.array(self.shape), settings=np.array(self.settings),
                vocabulary=np.array(json.dumps(self.vocabulary)),
            )  # fmt: skip
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """What `save` wrote; raises `DataError` where it is not there or cannot be read."""
        path = folder / NAME
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(
                    file["x"], file["y"], tuple(file["names"].tolist()),
                    tuple(file["labels"].tolist()), tuple(file["shape"].tolist()),
                    str(file["settings"]),
                    _vocabulary(str(file["vocabulary"])) if "vocabulary" in file else {},
                )  # fmt: skip
        except (OSError, ValueError, KeyError) as exc:
            raise DataError(
                f"{path}: what is normal cannot be read there ({exc}); make the model from its "
                "module and rows once in this folder: SelfHealing(module, x, y, name=...)"
            ) from exc

    def _is_at(self, path: Path) -> bool:
        try:
            known = Reference.load(path.parent)
        except DataError:
            return False
        plain = [
            (one.names, one.labels, one.shape, one.settings, one.vocabulary)
            for one in (self, known)
        ]
        same = np.array_equal(self.x, known.x, equal_nan=True)
        return plain[0] == plain[1] and same and np.array_equal(self.y, known.y)


def _vocabulary(text: str) -> Vocabulary:
    return {name: tuple(known) for name, known in json.loads(text).items()}
