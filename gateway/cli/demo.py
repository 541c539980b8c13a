"""``gateway demo``: a guided tour, with the real daemon among recipients' hosts of every kind."""

from __future__ import annotations

import click

__all__ = ["demo"]


@click.command()
@click.option("--once", is_flag=True, help="End after the tour: with 0 only if every recipient ended as told.")
def demo(*, once: bool) -> int:
    """Watch the gateway at work: who gets what, protected how, and why.

    Starts the real daemon with a store and a configuration of its own in a temporary directory, plays the world around
    it on loopback, sends real mail through it, and shows what became of each recipient. Then it waits for mail of your
    own. Needs no root and no network; leaves nothing behind.
    """
    from gateway.demo.screen import Screen
    from gateway.demo.tour import run_tour

    return run_tour(Screen(), once=once)
