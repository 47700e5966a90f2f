"""Where sweeps, trainings and searches run: in this process, or over a Ray cluster."""
