"""The digits demo: every step of the way by its public command."""
