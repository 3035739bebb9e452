"""Evidence maps and Grad-CAM in closed form, and their pictures."""
