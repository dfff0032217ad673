"""The registry that MLflow keeps: versions, runs, the journal, and the store behind them."""
