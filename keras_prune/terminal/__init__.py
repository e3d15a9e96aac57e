"""What appears on the terminal, and what does not."""
