"""Where the engine runs: in this process, or over a Ray cluster."""
