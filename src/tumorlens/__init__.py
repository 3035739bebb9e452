"""tumorlens: brain tumours in MRI slices, classified, explained and honestly measured.

For research and teaching; not a medical device. Importing the package loads neither PyTorch nor Streamlit.
"""

__version__ = "0.3.0"

DISCLAIMER = "For research and teaching only. Not a medical device; not for diagnosis or treatment."
