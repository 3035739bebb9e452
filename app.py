"""The app: `streamlit run app.py`."""

from tumorlens.app import main

main()
