"""What a training is made of: labels, samplers, losses, heads, the ledger, metrics, closed form."""
