"""The directory that a conversion writes: staged beside what is there, put in its place at the end."""
