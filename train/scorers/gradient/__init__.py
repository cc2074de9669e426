"""Scores that look at the gradient of the network with respect to its input, or to its head."""
