"""Which datasets the tree holds and what is known of each."""
