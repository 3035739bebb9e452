"""What `tumorlens app` hands to Streamlit."""

from tumorlens.app import main

main()
