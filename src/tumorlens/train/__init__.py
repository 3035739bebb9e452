"""Training: a loop that knows no tumours, and the recipe that does."""
