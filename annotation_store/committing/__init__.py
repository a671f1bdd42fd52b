"""Carrying out orders on a block whose lock is held: leaves, the group of orders, and the one write of it."""
