"""A progress bar for whatever takes more than two seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

# Told (what is being done, how much is done, of how much).
Report = Callable[[str, int, int], None]


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Show a progress bar on stderr; yields what an import reports to."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        tasks: list[TaskID] = []

        def report(stage: str, done: int, total: int) -> None:
            if not tasks:  # no bar for work that is not done
                tasks.append(progress.add_task(stage))
            progress.update(tasks[0], description=stage, completed=done, total=max(total, 1))

        yield report
