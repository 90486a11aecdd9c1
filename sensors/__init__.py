"""What starts work, and what makes sure that nothing is left behind."""
