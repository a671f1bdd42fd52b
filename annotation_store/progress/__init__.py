"""How far the review of a dataset is: what was drawn and by whom, what was looked at, what is confirmed."""
