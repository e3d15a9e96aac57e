"""Export models for other runtimes, and verify each file before it is put in place."""
