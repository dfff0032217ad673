"""What works on rows and records after the fact: compare, replay, rescore, drill, history."""
