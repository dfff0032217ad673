"""REGISTRY: snapshots as model versions, and the alias of what serves."""

import os

# MLflow reads this when it is imported; what runs beside transactions reports to nobody unasked
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
