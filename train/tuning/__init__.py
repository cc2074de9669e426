"""The parts of a search for hyper-parameters; `train.tune` puts them together."""
