"""What the article's scenario names."""

RULE = "V14 < -1.5 => 1"
