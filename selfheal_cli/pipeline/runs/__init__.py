"""A run as a whole: begun, resumed, served, and its results."""
