"""The subcommands of `oodserve`: one file each."""
