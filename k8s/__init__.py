"""The lowest layer: what knows Kubernetes and nothing of Prefect or of releases.  Its target is not built yet."""
