"""What a whole-file save means: the difference to what its page held, merged into what is stored. Pure."""
