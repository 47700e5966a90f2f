"""The configuration: its typed schema, and how a suite and the command line are composed into it."""
