"""Sources: rows to train on, then a stream of batches."""
