"""What surrounds a training loop: the frame, setting a stage up, its teachers, its evaluations."""
