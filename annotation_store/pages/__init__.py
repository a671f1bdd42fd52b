"""What the pages of this host hold, and their saves that were refused: kept in the state directory."""
