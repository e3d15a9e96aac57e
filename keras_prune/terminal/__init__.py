"""Tables, progress bars, and suppressed output in the terminal."""
