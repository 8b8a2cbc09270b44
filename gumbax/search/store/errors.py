"""The error that the command line shows without a traceback."""

from gumbax._common import checks


class SearchError(ValueError):
    """Something that the user can mend: an option, a file, a folder."""


class DataWarning(UserWarning):
    """Data that are probably not as they were meant; what was assumed, and the cure."""


def search_error(argument: str, must: str, got: object, cure: str) -> SearchError:
    """Builds the error in the form of all argument errors."""
    if isinstance(got, str):  # which may be a sentence, or another error
        got = got.removesuffix(".")
    return SearchError(checks.message("gumbax search", argument, must, got, cure))
