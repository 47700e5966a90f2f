"""What becomes of a config: resolve, prepare, train, sweep, report. The only room that sees the whole `Config`."""
