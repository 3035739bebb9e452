"""What an evaluation cannot say, as sentences."""

from tumorlens.evaluate.evaluation import Evaluation


def limits(evaluation: Evaluation) -> list[str]:
    """The limits that follow from who was tested and how."""
    accuracy = evaluation.tables[evaluation.main].overall["accuracy"]
    found = [
        "Single slices, not studies: a reader sees the whole volume, other sequences, and the patient.",
        f"{accuracy.n} patient groups: what is rare among them is hardly measured. Read the intervals.",
        "The classes are the only answers: other lesions, and tumours of other kinds, get one of these names too.",
    ]
    if len({origin for origin in evaluation.answers[evaluation.main].origins if origin}) > 1:
        found.append(
            "Where classes come from different sources, part of a good figure may be that sources were told apart; the "
            "tables by source say how the model does within one."
        )
    if evaluation.main != "test":
        found.append("No tested patients are here: these figures are of data that the model was made with.")
    return found
