"""Making model packages from data: preparation, pipeline, evaluation, compilation, model card.

Nothing that serves imports this package; scikit-learn, XGBoost, pandas and shap are needed only
here.
"""
