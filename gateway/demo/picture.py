"""``python -m gateway.demo.picture docs/demo.svg``: the tables of the tour as a picture, from a real run."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import time
from pathlib import Path

from rich.console import Console

from gateway.demo.client import hand_over, written
from gateway.demo.neighbours import Town, kinds
from gateway.demo.record import Mail, Record
from gateway.demo.screen import WIDTH, Screen, table
from gateway.demo.script import LETTERS, Letter
from gateway.demo.stage import Stage
from gateway.testing import poll

_PATIENCE = 60.0


async def _draw(screen: Screen) -> None:
    async with Town() as town, Stage(town) as stage, Record(stage.config) as record:
        for letter in LETTERS:
            mail = await _sent(stage, record, letter)
            screen.title(letter.title)
            screen.say(letter.about)
            screen.console.print(table(mail.fates, kinds(town.neighbours), time.time()))


async def _sent(stage: Stage, record: Record, letter: Letter) -> Mail:
    message = await hand_over(stage, list(letter.to), written(list(letter.to), letter.subject, letter.body))

    async def settled() -> Mail | None:
        (mail,) = await record.mail([message])
        return mail if mail.settled else None

    mail = await poll(settled, _PATIENCE, interval=0.1)
    assert mail is not None
    return mail


def picture() -> str:
    """The picture, SVG. It asks nobody for fonts."""
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=WIDTH, highlight=False)
    asyncio.run(_draw(Screen(console)))
    svg = console.export_svg(title="gateway demo", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
