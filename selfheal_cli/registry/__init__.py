"""REGISTRY: snapshots as model versions, and the alias of what serves."""

import os

# MLflow reads these when it is imported. What runs beside transactions reports to nobody unasked,
# and what a program reads on standard output is ours alone.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# a bar for each version that is fetched, where tqdm is installed
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
