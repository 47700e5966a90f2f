"""The computing itself, in pure torch: what is planned, degraded, predicted and scored. Knows neither Ray nor files."""
