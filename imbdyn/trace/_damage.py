"""What a reader tells of a trace that is not whole: the file, and what is the matter with it."""

from __future__ import annotations


class TraceDamage(UserWarning):
    """A file of a trace, or a part of one, that was left out because it is not as it was written.

    What is left out is missing from the rows; every row that is returned was checked.
    """

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(file, problem)
        #: The file's path or URI.
        self.file = file
        #: What is the matter, and what was left out.
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TraceDamage) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


class UntrustedError(ValueError):
    """Bytes that are not what a writer of this format writes; the message says in what way."""
