"""Out-of-distribution scores as torch modules: one file each."""
