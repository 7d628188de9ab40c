"""What all methods of a task share: losses, training stages, scores."""
