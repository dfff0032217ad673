"""Monitors by name, one file a family; `kinds.py` finds them."""
