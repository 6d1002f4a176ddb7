"""After the training: export, Paddle-Lite's optimizer, and the check of what came out."""
