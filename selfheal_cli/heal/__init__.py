"""HEAL: the adapter alone learns, on a private copy."""
