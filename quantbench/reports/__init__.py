"""What a reader opens: the tearsheet and the site."""
