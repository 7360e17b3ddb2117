"""The result of an evaluation, for people and as JSON."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from alexnet_jax import strict_json
from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.evaluation.tally import Tally


@dataclasses.dataclass(frozen=True)
class Member:
    """A network that was evaluated.

    Attributes:
      name: of the workdir, as the command has it.
      step: updates done.
      weight: in the ensemble.
      means: loss and error rates of this network alone.
    """

    name: str
    step: int
    weight: float
    means: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    Attributes:
      members: the networks; several are an ensemble.
      total: of the network or the ensemble.
      class_names: in the order of the labels.
      views: one of `geometry.VIEWS`.
      dataset, split: what it was evaluated on.
    """

    members: Sequence[Member]
    total: Tally
    class_names: Sequence[str]
    views: int
    dataset: str
    split: str

    def as_json(self, *, per_class: bool) -> str:
        """The result as a JSON object. `step` is that of one network; an ensemble has `members`."""
        facts: dict[str, Any] = {
            "views": self.views,
            "dataset": self.dataset,
            "split": self.split,
            "count": int(self.total.count.sum()),
        } | self.total.means()
        if len(self.members) == 1:
            facts = {"step": self.members[0].step} | facts
        else:
            members = [
                {"workdir": member.name, "step": member.step, "weight": member.weight} | member.means
                for member in self.members
            ]
            facts = {"members": members} | facts
        return strict_json.dumps(facts | {"per_class": list(self._rows())} if per_class else facts)

    def as_text(self, *, per_class: bool) -> str:
        """The result as a line, after a line for each member of an ensemble and before a table of the classes."""
        count = f"{int(self.total.count.sum()):,} images of {self.dataset} {self.split}"
        views = f"{self.views} view{'s' * (self.views > 1)}"
        if len(self.members) == 1:
            lines = [f"step {self.members[0].step:,}  {views}  {numbers(self.total.means())}  {count}"]
        else:
            lines = [
                f"{member.name}  step {member.step:,}  weight {member.weight:.3g}  {numbers(member.means)}"
                for member in self.members
            ]
            lines.append(f"ensemble of {len(self.members)}  {views}  {numbers(self.total.means())}  {count}")
        return "\n".join([*lines, *self._table()] if per_class else lines)

    def _rows(self) -> Iterator[dict[str, Any]]:
        errors = {"top1": self.total.by_class(self.total.top1)}
        if self.total.top5 is not None:
            errors["top5"] = self.total.by_class(self.total.top5)
        for label, name in enumerate(self.class_names):
            row: dict[str, Any] = {"class": name, "count": int(self.total.count[label])}
            yield row | {error: values[label] for error, values in errors.items()}

    def _table(self) -> Iterator[str]:
        """A line for each class, in columns."""
        rows = list(self._rows())
        names = [readable(row["class"]) for row in rows]
        width = max(map(len, [*names, "class"]))
        errors = [name for name in rows[0] if name.startswith("top")]
        yield "  ".join(["", f"{'class':{width}}", "images", *(f"top-{name[3:]} error" for name in errors)]).lstrip()
        for name, row in zip(names, rows, strict=True):
            shares = ["-" if row[error] is None else f"{row[error]:.2%}" for error in errors]
            yield "  ".join([f"{name:{width}}", f"{row['count']:>6,}", *(f"{share:>11}" for share in shares)])


def numbers(means: dict[str, float]) -> str:
    """Error rates and loss, as a part of a line."""
    errors = "  ".join(f"top-{name[3:]} error {value:.2%}" for name, value in means.items() if name != "loss")
    return f"{errors}  loss {means['loss']:.4f}"
