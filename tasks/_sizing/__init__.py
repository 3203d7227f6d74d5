"""What a model needs of GPUs, told from its Hub's metadata alone: no store, no cluster, no weights."""
