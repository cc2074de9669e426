"""Published data sets in the files in which they are distributed; one file for each family."""
