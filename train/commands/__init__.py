"""The subcommands of `python -m train`: one file each."""
