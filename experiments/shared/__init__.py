"""What the commands of `experiments` share."""
