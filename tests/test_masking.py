"""No secret is shown, whatever a URI looks like and wherever it is quoted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import RegistryError
from selfheal_cli.masking import masked, masked_uri, masked_value, without_secrets
from tests.conftest import Invoke

FORMS = (
    "postgresql://ann:{}@db:5432/mlflow",
    "postgresql+psycopg://ann:{}@[::1]:5432/mlflow?sslmode=require",
    "postgresql://db/mlflow?user=ann&password={}",
    "postgresql://db:5432/mlflow?sslmode=prefer&sslpassword={}",
    "postgresql://db/mlflow?p%61ssword={}",
    "mysql+pymysql://ann:{}@db/mlflow?charset=utf8",
    "mssql+pyodbc://db/mlflow?driver=x;UID=ann;PWD={}",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{}",
    "http://ann:{}@tracking:5000",
    "https://{}@tracking",
    "https://tracking/?access_token={}",
    "https://store.example/rows?X-Amz-Signature={}",
    "https://store.example/rows?sv=2024&sig={}",
    "s3://KEY:{}@bucket/path",
    "redis://:{}@cache",
    "postgres:/ann:{}@db/mlflow",
    "postgres:ann:{}@db/mlflow",
    "postgresql//ann:{}@db/mlflow",
)
PAIRS = (
    "sasl.password={}",
    "sasl.jaas.config=Login required username='ann' password='{}';",
    "DRIVER={{x}};UID=ann;PWD={};DATABASE=m",
    "PWD={{{};}}",
    "AWS_SECRET_ACCESS_KEY={}",
    "AccountKey={};EndpointSuffix=core",
    "api_key = {}",
    "Authorization: Basic {}",
    "authorization: Bearer {}",
)
# not blank at the ends: where a text is quoted, a blank ends the URI
HOSTILE = st.text(st.sampled_from("@/:?#&;%=+'\"(){}[]\\|$~ a5é"), max_size=6)
CORE = "hunter2"


@pytest.mark.parametrize("form", FORMS)
@given(before=HOSTILE, after=HOSTILE)
def test_no_character_of_a_password_makes_a_uri_show_it(form: str, before: str, after: str) -> None:
    uri = form.format(f"{before}{CORE}{after}")
    assert CORE not in masked_uri(uri)


@pytest.mark.parametrize("form", FORMS)
def test_a_uri_that_is_kept_holds_no_password(form: str) -> None:
    assert CORE not in without_secrets(form.format(CORE))


@pytest.mark.parametrize("form", [*FORMS, *PAIRS])
def test_a_quoted_secret_is_not_shown_and_an_error_cannot_carry_it(form: str) -> None:
    text = f"cannot connect ({form.format(CORE)}): refused, try again"
    assert CORE not in masked(text)
    assert CORE not in str(RegistryError(text))
    assert masked(masked(text)) == masked(text)


@given(before=HOSTILE, after=HOSTILE)
def test_a_value_that_is_a_uri_is_masked_as_a_whole(before: str, after: str) -> None:
    assert CORE not in masked_value(f"postgresql://ann:{before}{CORE}{after}@db/mlflow")


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/ann@corp:8/mlflow.db",
        "models:/fraud@champion",
        "http://127.0.0.1:5000/health: refused",
        "http://[::1]:5000",
        "postgresql://ann@db1:5432,db2:5432/mlflow?sslmode=require",
        "s3://bucket/runs/1",
        "postgresql://USER@HOST/DATABASE",
        "amount > 3 and not (country = 'AT')",
        "moved by ann@corp at 2026-01-31T14:05:00+00:00: by hand",
        "column 'passengers' = 5, 'tokens': 7",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(text: str) -> None:
    assert masked(text) == masked_value(text) == text


@pytest.mark.parametrize(
    "uri", [form for form in FORMS if form.startswith(("postgres", "mssql+pyodbc://"))]
)
def test_no_command_shows_the_password_of_a_store_that_it_cannot_reach(
    uri: str, empty_dir: object, invoke: Invoke
) -> None:
    given_uri = uri.format(CORE).replace("db:5432", "127.0.0.1:1").replace("@db/", "@127.0.0.1:1/")
    given_uri = given_uri.replace("//db/", "//127.0.0.1:1/").replace("[::1]:5432", "127.0.0.1:1")
    store = ("--tracking-uri", given_uri)
    for arguments, code in (
        (("snapshots", "--model-name", "x", *store), 4),
        (("doctor", "--json", *store), 4),
        (("config", "show", *store), 0),
        (("config", "show", "--json", *store), 0),
        (("ui", *store), 4),
    ):
        said = invoke(*arguments, expect=code)
        assert CORE not in said.output + said.stderr, arguments
