"""Where the figures of README and docs come from; results in `results/`."""
