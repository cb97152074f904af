"""Networks at work: trained, frozen, re-fitted, and asked about images."""
