"""Errors a user can act on: what was wrong, the value it got, what is allowed, what to do next."""


class TumorlensError(ValueError):
    """Something the user can mend; the command line prints it as one sentence, without a traceback."""


class InputError(TumorlensError):
    """A picture, file or folder that cannot be used. Costs only itself: other inputs go on."""


class ManifestError(TumorlensError):
    """A manifest that is malformed, or whose files are missing."""


class SplitError(TumorlensError):
    """A split that cannot be made without putting a patient on two sides."""


class BundleError(TumorlensError):
    """A model bundle that is incomplete, altered, or does not do what it claims."""


class CheckpointError(TumorlensError):
    """A checkpoint that does not belong to this run."""


class TrainingError(TumorlensError):
    """Training that cannot go on; what was learned until then is kept."""


class RunError(TumorlensError):
    """A run folder that is missing something, or would be overwritten."""


class MaskError(RunError):
    """A run whose data mark too few tumours to learn from."""


class FetchError(TumorlensError):
    """A download that a server refused, that broke off, or that is not the file it should be."""
