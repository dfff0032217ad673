"""KServe's first protocol: ``POST /v1/models/NAME:predict`` with rows as lists or as objects.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from selfheal_cli.errors import RequestRefused
from selfheal_cli.serve.http.tables import RECORDS, SPLIT

ROWS = ("instances", "inputs")  # either name is in use


def as_table(body: bytes, names: Sequence[str]) -> bytes:
    """The same rows as MLflow's protocol has them; raises `RequestRefused`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise RequestRefused("not JSON that can be read") from exc
    given = [name for name in ROWS if isinstance(document, dict) and name in document]
    if len(given) != 1 or not isinstance(document[given[0]], list) or not document[given[0]]:
        raise RequestRefused('{"instances": [rows]} is expected, and a row at least')
    rows = document[given[0]]
    if all(isinstance(row, dict) for row in rows):
        table = {RECORDS: rows}
    elif all(isinstance(row, list) and len(row) == len(names) for row in rows):
        table = {SPLIT: {"columns": list(names), "data": rows}}
    else:
        raise RequestRefused(
            f"{given[0]}: a row is an object, or a list of the model's {len(names)} inputs in order"
        )
    known = {"params": document["params"]} if "params" in document else {}
    return json.dumps(table | known).encode()
