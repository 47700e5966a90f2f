"""Engine: what is missing (`plan`), computing it (`evaluate`, `worker`), and spreading it (`local`, `pipeline`)."""
