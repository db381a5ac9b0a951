"""What everything that is explained in one call shares, and the names that its files get from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxlrp.explain.naming import safe

Target = str | int | tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What all samples of one call share; `model` and `rules` are names for people.

    `target_each_run`: the model takes the target with every run (it was converted with the target "input").
    `rather_than`: explained is the difference of the target to this one.
    `part`: what else file names say of what is explained, such as a cosine.
    `in_pairs`: images are compared with another one, pair by pair of their cells.
    `through`: the channels of hidden tensors that relevance is restricted to, in words.
    `aim` and `aim_tag`: what is explained in place of a target, in words and in file names.
    """

    model: str
    rules: str
    target: Target = "argmax"
    labels: tuple[str, ...] | None = None
    top: int = 5
    target_each_run: bool = False
    rather_than: Target | None = None
    aim: str = ""
    aim_tag: str = ""
    part: str = ""
    in_pairs: bool = False
    through: str = ""

    @property
    def tag(self) -> str:
        """The part of file names that tells rule table and chosen target apart."""
        name = f"{safe(self.rules)}.{safe(self.aim_tag)}" if self.aim_tag else safe(self.rules)
        other = "" if self.rather_than is None else f".not-{_numbers(self.rather_than)}"
        return (
            name + self._target_tag() + other + "".join(f".{safe(part)}" for part in (self.part, self.through) if part)
        )

    def _target_tag(self) -> str:
        if not isinstance(self.target, str):
            return f".class-{_numbers(self.target)}"
        return f".elements-{_numbers(self.target)}" if ":" in self.target and self.maps is None else ""

    @property
    def maps(self) -> int | None:
        """How many maps each sample gets with `top:K`; None for the single map of other targets."""
        if isinstance(self.target, str) and self.target.startswith("top:"):
            return int(self.target.removeprefix("top:"))
        return None

    def map_stems(self, prefix: Path) -> list[Path]:
        """What the names of the pictures of each map start with."""
        if self.maps is None:
            return [prefix]
        return [beside(prefix, f".top-{place}") for place in range(1, self.maps + 1)]

    def planned(self, prefix: Path, pictures: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Path]:
        """Every file for one prefix: `pictures` are endings that each map has, `others` come once."""
        for stem in self.map_stems(prefix):
            for ending in pictures:
                yield beside(stem, ending)
        for ending in others:
            yield beside(prefix, ending)


def _numbers(target: Target) -> str:
    """The indices of a target as a part of a file name."""
    if isinstance(target, str):
        return target.replace(":", "to").replace(",", "-")
    return str(target) if isinstance(target, int) else "-".join(map(str, target))


def beside(prefix: Path, ending: str) -> Path:
    """The path with more at the end of its name (`with_suffix` would replace what follows a dot)."""
    return prefix.with_name(prefix.name + ending)
