"""From predictions to figures with intervals to a report. Never sees a model or a picture tensor."""
