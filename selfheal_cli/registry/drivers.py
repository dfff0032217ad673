"""Optional libraries behind a store's URI, and what they raise when the store is away."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from urllib.parse import urlsplit

from selfheal_cli.errors import RegistryError

# scheme of the URI: what it needs, and the extra that brings it
DRIVERS = {
    "postgresql": ("psycopg", "postgres"),
    "postgresql+psycopg": ("psycopg", "postgres"),
    "s3": ("boto3", "s3"),
}


def require_driver(uri: str) -> None:
    """Raises `RegistryError` with what to install where a store's library is missing."""
    scheme = urlsplit(uri).scheme
    if scheme not in DRIVERS:
        return
    module, extra = DRIVERS[scheme]
    if find_spec(module) is None:
        raise RegistryError(
            f"a store at {scheme}:// needs the library {module}, which is not installed here: "
            f"pip install 'selfheal-cli[{extra}]'"
        )


def away_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """``others``, and what boto3 raises once MLflow has loaded it."""
    if "boto3" not in sys.modules:
        return others
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (*others, Boto3Error, BotoCoreError, ClientError)
