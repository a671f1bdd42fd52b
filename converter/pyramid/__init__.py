"""The engine: a pyramid divided into tasks, made level by level in bounded memory, in processes or on a cluster."""
