"""What the front door lets in, and what it does not."""
