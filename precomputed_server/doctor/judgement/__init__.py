"""Facts → findings: pure. Each sentence is for a facility's administrator, and names the remedy."""
