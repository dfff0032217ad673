"""A small table with numbers, a text, a truth value and gaps, and models fitted on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["amount", "age"]


def table(rows: int, seed: int = 0, classes: int = 2) -> pd.DataFrame:
    """Rows whose ``y`` follows the columns; from the middle on ``amount`` lies 2 higher."""
    drawn = np.random.default_rng(seed)
    amount, age = drawn.normal(0, 1, rows), drawn.integers(18, 80, rows)
    country = drawn.choice(["AT", "DE", "US"], rows)
    known = drawn.random(rows) < 0.5
    score = 1.5 * amount + 0.03 * (age - 50) + (country == "US") + drawn.normal(0, 0.7, rows)
    frame = pd.DataFrame({"amount": amount, "age": age, "country": country, "known": known})
    frame["amount"] += 2.0 * (np.arange(rows) >= rows // 2)
    frame.loc[drawn.random(rows) < 0.05, "amount"] = np.nan
    frame.loc[drawn.random(rows) < 0.05, "country"] = np.nan
    return frame.assign(y=np.digitize(score, np.linspace(0.3, 1.5, classes - 1)))


def pipeline(frame: pd.DataFrame) -> Any:
    """It chooses its columns by name, fills gaps and one-hot encodes texts."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("n", numbers, NUMBERS), ("t", texts, ["country", "known"])])
    return make_pipeline(columns, LogisticRegression()).fit(frame.drop(columns="y"), frame["y"])
