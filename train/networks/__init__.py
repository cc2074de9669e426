"""The networks: a backbone, a head on its features, and what methods add to them."""
