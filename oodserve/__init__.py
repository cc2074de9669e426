"""Image classifiers that know when they do not know: scores, calibration, bundles, prediction."""

__version__ = "0.1.0"
