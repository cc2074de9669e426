"""The HTTP server around `oodserve.predictor`."""
