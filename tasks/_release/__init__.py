"""The release engine: the record and its changes, the lease, the decision, the steps, the targets."""
