"""Every longer text of the app, in one place: what is to be translated."""

STUDY, FOLDER, RESULTS, LEARN = "One study", "A folder", "Results", "Learn"

TITLE = "tumorlens"
ABOUT = "Glioma, meningioma, pituitary tumour or none, in MRI slices of the head, and where the answer comes from."
UPLOAD = "Your picture, DICOM files, ZIP of a series, or NIfTI volume"
PRIVATE = "Nothing leaves this computer, and nothing of it is kept."
TOO_MUCH = "{name} and what comes after it were left out: a study may have {most} million pixels."
OR_EXAMPLE = "Or an example"
SYNTHETIC = "(synthetic: drawn into an averaged healthy head)"

SEES_NONE = "The slice; the model sees no tumour in it"
SEES_NO_PLACE = "The slice; no place in it is sure enough to be outlined"
NO_ANSWER = "No answer"
NOT_A_BRAIN = (
    "This does not look like an MRI slice of the head, as far as this model can tell. It answers only what resembles "
    "the scans it learned from."
)
UNCERTAIN = "Too uncertain to count as an answer:"
RULED_OUT = "The other classes are ruled out, as far as 9 in 10 such slices go."
EMPTY_MAP = "The map is empty: nothing in this picture speaks for this class more than for the others."
BARS = "Calibrated probabilities of the four classes; they add up to 100%."

MAP_HELP = (
    "Grad-CAM shows what the answer rests on, on a coarse grid. Sharpened, it is kept where the model sees tumour on "
    "finer cells. The region is where it sees tumour, whatever it answers."
)
AGAINST_HELP = "What sets the class above apart from this one: the difference of their evidence."
RANGE_HELP = "How grey values are shown. It changes the picture on this page, not the answer."

TRUST = "How far to trust this"
THE_MODEL = "the model"
MEASURED = "Measured on patients that {whose} never saw, with 95 % intervals by patient:"
LIMITS = (
    "- Tumours and healthy heads of the training data come largely from different sources; part of what tells them "
    "apart may be the source.\n"
    "- A heatmap shows where the network found its evidence, on a coarse grid; often that is not in the tumour. It is "
    "no outline."
)
REFUSES = "- Pictures that are no brain MRI are refused, but not every one of them: do not read an answer for such."
ANSWERS_ALL = "- The model answers **every** picture, also one that is no brain MRI: do not read an answer for such."

REPORT = "Report of this slice"
REPORT_NOTE = "One page with picture, map, answer and figures. No name of a file or patient is in it unless you ask."
WITH_NAME = "Write the file's name into it"

PROFILE = "Probability of each class along the volume"
PLANE_HELP = "A NIfTI volume may be cut in any plane; as acquired is across its thickest slices."
WINDOW = "Grey values through the header's window"
WINDOW_HELP = (
    "A DICOM file says how the scanner's operator looked at it. Off, the model sees all values, as in training; "
    "on, what the window shows."
)
STRONGEST = (
    "Shown first is the slice where the model sees most tumour; where it sees none, the one likeliest to show one."
)

FOLDER_ABOUT = "Drop many pictures, or ZIP archives of them: a row a slice, to sort, filter, open and download."
FOLDER_LIMIT = "Up to {most} slices a session."
FOLDER_EMPTY = "Nothing here yet. Drop files above, or try it with the examples."
FOLDER_LEFT_OUT = (
    "{n} more files were left out: a session takes {most} slices, or {megabytes} MB of them. Use `tumorlens predict` "
    "for more."
)
FOLDER_NO_PICTURES = "Left out of the folder as no pictures, by name and content: {n} files."
OPEN_ROW = "Select a row to open it below."

FOLDER_LABELLED = (
    "Labelled by their folders: **{right} of {n}** answered right. Whose slices they are is not known here, so there "
    "is no interval: `tumorlens data index` and `evaluate` give one."
)

RESULTS_ABOUT = "Figures of a run, with 95 % intervals by patient: tables, plots, and the slices behind each number."
RESULTS_NONE = (
    "No run found. Start the app where `runs/` lies, or name folders in `TUMORLENS_RUNS`; or give a predictions.csv."
)
CONFUSION_HELP = "Select a cell to list its slices, with pictures where the run's images are still there."
COMPARE = "Compare with"

LEARN_ABOUT = "From a picture to an answer and its map, step by step, with the numbers of the model at hand."
STEP_SEEN = (
    "**1 · What the network sees.** The slice is scaled between its 0.5th and 99.5th percentile, cropped to the head, "
    "padded to a square and resized to {size} × {size} pixels: so the field of view says little of the source."
)
STEP_EVIDENCE = (
    "**2 · Evidence.** The last residual block gives {h} × {w} cells with 2,048 features each. One linear layer turns "
    "the features of a cell into *evidence* for each class: here are the four maps. Blue speaks against a class, "
    "orange for it; all four share one scale."
)
STEP_POOLED = (
    "**3 · The answer.** The mean of a map, plus a constant, is the class's *logit*. Divided by the temperature "
    "({temperature:.2f}, fitted so that probabilities mean what they say) and put through softmax it becomes the "
    "probability."
)
STEP_REGION = (
    " The logit of *no tumour* has one more part: what a second head, taught with tumour masks, sees in earlier "
    "layers lowers it, at a weight of {weight:.2f}. So its mean alone does not decide."
)
STEP_GRADCAM = (
    "**4 · The map.** Grad-CAM asks how the probability of a class would rise if a cell's features grew. As everything "
    "after the last block is linear, the answer is exact and needs no gradient: take the evidence for the class, "
    "subtract the mean evidence of all classes, weighed by their probabilities, and keep what is positive."
)
SPLIT_TITLE = "Why a split by slice misleads"
SPLIT_ABOUT = (
    "Neighbouring slices of one patient are near copies. If some are in training and others are tested, a model "
    "that has merely learned to recognise *patients* looks excellent. Simulated here: 60 patients with 12 slices each "
    "and a nearest-neighbour classifier, tested once by slice and once by patient. Only the second figure says how it "
    "will do on the next patient."
)
SPLIT_ALIKE = "How alike the slices of one patient are"
SPLIT_REAL = (
    "This is no theory: of 523 test images of a popular public set that were audited, 522 share a patient or a near "
    "copy with training (docs/audit.md)."
)
