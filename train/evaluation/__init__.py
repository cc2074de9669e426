"""What a finished run is worth: figures with intervals, and the document that holds them."""
