"""The subcommands of `emerge3d`: one file each, a dataclass of options with a `run` method.

Their top levels import the standard library and tyro only, so that `--help` answers at once.
"""
