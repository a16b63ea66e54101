"""The subcommands of `poa`: each module has `configure(parser)` and `run(args) -> exit code`."""
