"""Models that are not torch: scikit-learn's, XGBoost's, LightGBM's, CatBoost's."""
