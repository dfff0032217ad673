"""Domain rules: conditions in a language of their own, and what they weakly label."""
