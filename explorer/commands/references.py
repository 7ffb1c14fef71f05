"""`emerge3d references`: who can say what the true geometry is, and what each needs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from explorer.errors import ReferenceError3D


@dataclass(frozen=True)
class References:
    """List the references, or fetch the weights of one."""

    id: Annotated[str | None, tyro.conf.Positional] = None
    """Only this one."""
    download: bool = False
    """Fetch its published weights into the Hugging Face cache."""
    json: bool = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        """Print what each reference is and what it lacks here.

        Raises:
            ReferenceError3D: unknown id, or the weights cannot be fetched.
        """
        from explorer import references

        if self.id is None and self.download:
            raise ReferenceError3D("say which reference: emerge3d references ID --download")
        found = references.describe()
        if self.id is not None:
            references.label(self.id)  # refuses unknown ids
            found = [each for each in found if each["id"] == self.id]
        if self.download and self.id is not None:
            print(f"{self.id} is in {references.download(self.id)}", file=sys.stderr)
            found = [each for each in references.describe() if each["id"] == self.id]
        print(json.dumps({"references": found}, allow_nan=False) if self.json else table(found))
        return 0


def table(found: list[dict[str, Any]]) -> str:
    """One line for each reference, and under it what to keep in mind and what it lacks."""
    names = [each["id"] for each in found]
    width = max(map(len, names))
    titles = max(len(each["title"]) for each in found)
    lines = []
    for each in found:
        licence = each["licence"].partition(" (")[0]
        lines.append(f"{each['id']:<{width}}  {each['title']:<{titles}}  {licence}".rstrip())
        if each["remark"]:
            lines.append(f"{'':<{width}}  {each['remark']}")
        if each["missing"]:
            lines.append(f"{'':<{width}}  not here: {each['missing']}")
    return "\n".join(lines)
