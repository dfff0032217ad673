"""REGISTRY: snapshots as model versions, and the alias of what serves."""
