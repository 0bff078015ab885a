"""Experiments as ml_collections configs: ``configs/<family>/<data set>_<model>.py``, each with ``get_config(arg)``."""
