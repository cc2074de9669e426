"""Ways to make outliers from training images, one file each."""
