"""The recipes, one module each; none knows another or who calls it."""
