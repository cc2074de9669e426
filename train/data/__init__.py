"""Images for training: built-in sets, folders, outliers, augmentation, loading."""
