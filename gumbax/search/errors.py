"""The error that the command line shows without a traceback."""

from gumbax import _checks


class SearchError(ValueError):
    """Something that the user can mend: an option, a file, a folder."""


def search_error(argument: str, must: str, got: object, cure: str) -> SearchError:
    """Builds the error in the form of all argument errors."""
    return SearchError(_checks.message("gumbax search", argument, must, got, cure))
