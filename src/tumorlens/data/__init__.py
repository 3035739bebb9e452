"""Files on disk become arrays with a patient attached."""
