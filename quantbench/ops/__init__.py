"""What a person or a scheduler starts: the command line."""
