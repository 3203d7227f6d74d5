"""The road of weights: from a Hub's commit to one verified copy in a store."""
