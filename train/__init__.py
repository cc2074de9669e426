"""Training: data, models, methods, scores, fitting and evaluation, in PyTorch."""
