"""Fine-tuning of one network, and one trial of a search over recipes; Ray is in `cnnsens_bench.runtime`."""
