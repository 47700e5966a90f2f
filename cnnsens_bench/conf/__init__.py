"""The suites, as YAML; each is headed by what it needs, costs and gives."""
