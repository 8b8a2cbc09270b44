"""The command `gumbax`, and what it does in a folder."""

from gumbax.search.command.cli import main as main
from gumbax.search.command.progress import Progress as Progress
from gumbax.search.command.progress import RichProgress as RichProgress
from gumbax.search.command.progress import Silent as Silent
from gumbax.search.command.run import run_search as run_search
