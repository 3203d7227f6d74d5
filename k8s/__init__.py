"""The lowest layer: what knows Kubernetes, and nothing of Prefect or of the order in which a release goes."""
