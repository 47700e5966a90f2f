"""Training: fine-tuning of one model."""
