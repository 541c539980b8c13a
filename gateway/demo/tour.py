"""The tour, act by act. What it says of the gateway was read from its store, its commands, or its neighbours' records.

``once`` ends by itself, with 0 only if every recipient ended as ``script`` tells; otherwise the tour then follows what
anybody sends, until it is interrupted. Either way nothing stays behind.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from urllib.request import urlopen

from gateway.demo.client import SENDER, hand_over, written
from gateway.demo.neighbours import NEIGHBOURS, Neighbour, Town, kinds
from gateway.demo.record import Mail, Record
from gateway.demo.screen import Screen
from gateway.demo.script import HELD, LETTERS, PATIENT_NUMBER, TAGGED, Letter, differences
from gateway.demo.stage import MARKERS, POLICY, REVIEWER, Stage
from gateway.demo.stopping import insistently, stoppable
from gateway.demo.words import line, why
from gateway.queue.states import LIVE, State
from gateway.testing import Message, poll

__all__ = ["Tour", "run_tour"]

#: How long a message may take to come to its end; a machine that does other things takes long.
_PATIENCE = 60.0
_LOOK = 0.15
_FOLLOW = 0.5
_LOOK_BACK = 60.0
#: Lines of a bounce that are shown.
_BOUNCE = 14
#: Whose bounce is shown, and whose message lies in the portal to be read.
_QUOTED = "gone@hospital.example"
READER = "carl@notls.example"
_LINK = re.compile(r"http://127\.0\.0\.1:\d+/m/\w+")
_PHRASE = re.compile(r"^  ([a-z]+ [a-z]+ [a-z]+ [a-z]+)\r?$", re.MULTILINE)
_CODE = re.compile(r"^  (\d{6})\r?$", re.MULTILINE)
_REFERENCE = re.compile(r"reference (\w\w-\w\w)")


def run_tour(screen: Screen, *, once: bool, neighbours: Sequence[Neighbour] = NEIGHBOURS) -> int:
    """The whole tour; its exit status. Interrupted, hung up or terminated, it cleans up and ends."""
    return asyncio.run(_until_told(screen, once=once, neighbours=neighbours))


async def _until_told(screen: Screen, *, once: bool, neighbours: Sequence[Neighbour]) -> int:
    tour = Tour(screen, once=once, neighbours=neighbours)
    with stoppable(tour.run()) as (task, told):
        try:
            return await task
        except asyncio.CancelledError:
            status = 0 if tour.following else 1
        except OSError:
            if not told:
                raise
            return 1  # the terminal is gone, and with it everybody to talk to
    with suppress(OSError):
        screen.blank()
        screen.say("Stopped; the processes and the directory of the demo are gone.")
    return status


class Tour:
    """One tour. ``following`` once everything was shown and only visitors' mail is awaited."""

    def __init__(
        self,
        screen: Screen,
        *,
        once: bool,
        neighbours: Sequence[Neighbour] = NEIGHBOURS,
        patience: float = _PATIENCE,
    ) -> None:
        self.following = False
        self._screen = screen
        self._once = once
        self._neighbours = tuple(neighbours)
        self._patience = patience
        self._kinds = kinds(neighbours)
        self._differences: list[str] = []
        self._shown: list[str] = []
        self._link, self._words = "", ""
        self._codes = 0

    async def run(self) -> int:
        """All acts; 0 if all went as told. Raises :class:`gateway.errors.GatewayError` where it cannot play."""
        self._screen.say("Starting the gateway and its neighbours ...", style="dim")
        async with Town(self._neighbours) as town, Stage(town) as stage, Record(stage.config) as record:
            self._town, self._stage, self._record = town, stage, record
            return await insistently(self._acts())

    async def _acts(self) -> int:
        self._introduce()
        for letter in LETTERS:
            await self._act(letter)
            if PATIENT_NUMBER in letter.body:
                self._nobody_saw()
        await self._tag()
        await self._hold()
        await self._bounces()
        await self._portal()
        status = self._sum_up()
        if not self._once:
            self._invite()
            status = await self._follow()
        return status

    # -- the acts -----------------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        screen, stage = self._screen, self._stage
        screen.title("A secure email gateway, at work")
        screen.say(
            f"This is the real `gateway run`, on 127.0.0.1:{stage.port}. Around it this program plays the world, on "
            f"loopback only: Microsoft 365, which hands it the mail of {SENDER}; a DNS resolver; and recipients' mail "
            "hosts, good and bad. For each recipient the gateway decides what protection policy asks for, checks it on "
            "the connection that carries the mail, and sends nothing where the host falls short."
        )
        screen.blank()
        screen.say("Its policy:")
        screen.yaml(POLICY)

    async def _act(self, letter: Letter) -> Mail:
        """Send it, watch it, say why."""
        screen = self._screen
        screen.title(letter.title)
        screen.say(letter.about)
        screen.say(f"Subject: {letter.subject}   ({len(letter.to)} recipient{'s' if len(letter.to) > 1 else ''})")
        message = await hand_over(self._stage, list(letter.to), written(list(letter.to), letter.subject, letter.body))
        mail = await self._watch(message)
        self._differences += differences(letter, mail.fates)
        screen.say("Why:", style="bold")
        for fate in mail.fates:
            screen.about(fate.recipient, why(fate))
        return mail

    async def _watch(self, message: str) -> Mail:
        """Show its recipients until all have come to an end, or patience has."""
        self._shown.append(message)
        deadline = time.monotonic() + self._patience
        with self._screen.board(self._kinds) as board:
            while True:
                (mail,) = await self._record.mail([message])
                board.show(mail.fates)
                if mail.settled or time.monotonic() > deadline:
                    return mail
                await asyncio.sleep(_LOOK)

    def _nobody_saw(self) -> None:
        """Ask the hosts themselves whether a byte of the patient's number came to one that should not have it."""
        number = PATIENT_NUMBER.encode()
        saw = {domain for domain, peer in self._town.peers.items() if number in peer.received}
        self._differences += [f"{domain}: got the patient's number" for domain in sorted(saw - {"lab.example"})]
        asked = ", ".join(each.domain for each in self._neighbours if each.domain in _FELL_SHORT)
        self._screen.blank()
        self._screen.say(
            f"Asked what they received, the hosts of {asked} "
            + ("do not know a byte of the patient's number." if not saw & _FELL_SHORT else "know the number!")
        )

    async def _tag(self) -> None:
        await self._act(TAGGED)
        before, after = TAGGED.subject, self._subject_at("hospital.example")
        self._screen.say(f"Subject as sent:      {before}")
        self._screen.say(f"Subject as received:  {after}")
        if after != before.removeprefix("[secure] "):
            self._differences.append(f"ann@hospital.example: the subject came as {after!r}")
        kept = [
            name for name in MARKERS if name.lower().encode() in self._town.peers["hospital.example"].received.lower()
        ]
        self._differences += [f"ann@hospital.example: the marker {name} was not taken out" for name in kept]

    def _subject_at(self, domain: str) -> str:
        messages = self._town.peers[domain].messages
        return str(_parsed(messages[-1])["Subject"]) if messages else ""

    async def _hold(self) -> None:
        mail = await self._act(HELD)
        (to,) = HELD.to
        words = ("queue", "release", mail.id, "--reason", "a slip of the pen")
        await self._reviewed(mail.id)
        self._screen.say("A person lets it go:")
        self._screen.code(f"$ gateway {shlex.join(words)}")
        done = await self._stage.verb(*words)
        self._screen.quote(done.output)
        if done.status:
            self._differences.append(f"{to}: the release ended with status {done.status}")
            return
        released = await self._watch(mail.id)
        for fate in released.fates:
            if fate.state is not State.DELIVERED or fate.method != "tls":
                self._differences.append(f"{to}: released, but {fate.state} by {fate.method}")

    async def _reviewed(self, message: str) -> None:
        """Show what the reviewer was told."""

        def told() -> list[str]:
            every = (_text(_parsed(each)) for each in self._town.home.messages if REVIEWER in each.addresses)
            return [text for text in every if message in text]

        try:
            notice, *_ = await poll(told, self._patience)
        except TimeoutError:
            self._differences.append(f"{REVIEWER}: was not told of held mail")
            return
        self._screen.say(f"{REVIEWER} reviews such mail, and was told:")
        self._screen.quote(notice.partition("To look at it:")[0].strip())

    async def _bounces(self) -> None:
        """What came back to the sender's mailbox."""
        screen = self._screen
        screen.title("What the sender got")
        wanted = {
            recipient
            for letter in LETTERS
            for recipient, expected in letter.to.items()
            if expected.state is State.BOUNCED
        }
        with suppress(TimeoutError):
            await poll(lambda: wanted <= self._bounced().keys(), self._patience)
        found = self._bounced()
        self._differences += [f"{recipient}: the sender was not told" for recipient in sorted(wanted - found.keys())]
        over = ", ".join(sorted({message.tls_version or "no TLS" for message in self._town.home.messages}))
        screen.say(
            f"{len(found)} bounces came back to {SENDER}, each with its reason, over {over}. The one about "
            f"{_QUOTED} says:"
        )
        text = _text(found[_QUOTED]) if _QUOTED in found else ""
        screen.quote("\n".join(text.strip().splitlines()[:_BOUNCE]))

    def _reports(self) -> list[EmailMessage]:
        every = (_parsed(message) for message in self._town.home.messages if SENDER in message.addresses)
        return [report for report in every if b"Action: failed" in report.as_bytes()]

    def _bounced(self) -> dict[str, EmailMessage]:
        """The latest report for each recipient."""
        return {
            recipient: report
            for report in self._reports()
            for letter in LETTERS
            for recipient in letter.to
            if f"rfc822; {recipient}".encode() in report.as_bytes()
        }

    async def _portal(self) -> None:
        """What a recipient of the portal got, and what its sender got to tell."""
        screen = self._screen
        screen.title("What lies in the portal")
        notice = await self._mail_at(READER.partition("@")[2], READER, "secure message")
        if notice is None:
            return
        screen.say(f"{READER} was told by this mail, which holds nothing of the message:")
        screen.quote(notice.strip())
        phrase = await self._phrase()
        screen.say(
            "Mail to notls.example travels in the clear, so a code by mail is not enough to open what policy wants "
            f"encrypted. {SENDER} got four words to tell by phone: {phrase}"
        )
        link = _LINK.search(notice)
        if link is None:
            self._differences.append(f"{READER}: the notice has no link")
            return
        self._link, self._words = link[0], phrase
        landing = await asyncio.to_thread(_fetched, link[0])
        if "Example Clinic" not in landing:
            self._differences.append(f"{READER}: the link does not lead to the portal")

    async def _mail_at(self, domain: str, to: str, about: str) -> str | None:
        """The text of the newest mail to this address with that in its subject."""

        def there() -> list[EmailMessage]:
            peer = self._town.home if domain == "clinic.example" else self._town.peers[domain]
            every = [_parsed(each) for each in peer.messages if to in each.addresses]
            return [mail for mail in every if about in str(mail["Subject"])]

        try:
            found = await poll(there, self._patience)
        except TimeoutError:
            self._differences.append(f"{to}: got no mail about {about!r}")
            return None
        return _text(found[-1])

    async def _phrase(self) -> str:
        def there() -> list[str]:
            letters = (_parsed(each) for each in self._town.home.messages if SENDER in each.addresses)
            texts = [_text(letter) for letter in letters if "access phrase" in str(letter["Subject"])]
            return [found[1] for text in texts if READER in text and (found := _PHRASE.search(text))]

        try:
            return (await poll(there, self._patience))[-1]
        except TimeoutError:
            self._differences.append(f"{SENDER}: got no access phrase for {READER}")
            return ""

    def _sum_up(self) -> int:
        screen = self._screen
        screen.title("All told")
        count = sum(len(letter.to) for letter in (*LETTERS, TAGGED, HELD))
        if not self._differences:
            screen.say(f"{count} recipients, each ended as told.", style="green")
            return 0
        screen.say(f"Not everything ended as told ({count} recipients):", style="red")
        for difference in self._differences:
            screen.say(f"- {difference}")
        return 1

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def _invite(self) -> None:
        screen, stage = self._screen, self._stage
        hello = stage.directory / "hello.eml"
        hello.write_bytes(written(["bob@lab.example"], "Hello", "Written by hand.\n"))
        programs = Path(sys.executable).parent
        screen.title("Your turn")
        screen.say(f"Read the message to {READER} in a browser; the code that it mails is shown here:")
        screen.code(f"{self._link}\nthe four words: {self._words}")
        screen.say("In another terminal:")
        screen.code(f"cd {stage.directory}\nexport GATEWAY_CONFIG=$PWD/gateway.yaml PATH={programs}:$PATH")
        screen.say("Send something, with curl or with swaks; hello.eml is a message to change as you like:")
        screen.code(
            f"curl --url smtp://127.0.0.1:{stage.port} --ssl-reqd --cacert ca.pem \\\n"
            f"     --mail-from {SENDER} --mail-rcpt bob@lab.example --upload-file hello.eml\n"
            f"swaks --server 127.0.0.1:{stage.port} --tls \\\n"
            f"      --from {SENDER} --to dan@selfsigned.example --data @hello.eml"
        )
        screen.say("Look at it as an administrator does:")
        screen.code(
            "gateway trace --since 10m        # the life of each message\n"
            "gateway queue list               # what waits\n"
            f"gateway explain --from {SENDER} --to dan@selfsigned.example hello.eml\n"
            "gateway probe lab.example selfsigned.example"
        )
        screen.say(f"Change policy.yaml, then: kill -HUP {stage.pid}. What the daemon says stands in gateway.log.")
        screen.blank()
        screen.say("Following what comes in. Ctrl-C ends the demo and cleans up.", style="bold")

    async def _follow(self) -> int:
        """Tell of what comes in, until cancelled; 1 where the gateway ends before."""
        self.following = True
        told: dict[str, dict[str, State]] = {}  # by message and recipient
        over = set(await self._record.since(0))
        while self._stage.running:
            # Ids of two workers may come to light out of order, hence a look back.
            recent = set(await self._record.since(time.time() - _LOOK_BACK))
            over &= recent | set(self._shown)
            for mail in await self._record.mail(sorted((recent | told.keys()) - over)):
                self._tell(mail, told.setdefault(mail.id, {}))
                if all(fate.state not in LIVE for fate in mail.fates):
                    over.add(mail.id)
                    del told[mail.id]
            self._tell_codes()
            await asyncio.sleep(_FOLLOW)
        self._screen.say(f"The gateway ended by itself: {self._stage.last_words()}", style="red")
        return 1

    def _tell_codes(self) -> None:
        """Sign-in codes that were mailed to anybody since the last look."""
        found = [
            (address, _parsed(message))
            for peer in self._town.peers.values()
            for message in peer.messages
            for address in message.addresses
            if b"Subject: Your code" in message.raw
        ]
        for address, mail in found[self._codes :]:
            code, reference = _CODE.search(_text(mail)), _REFERENCE.search(_text(mail))
            if code and reference:
                self._screen.about(address, f"was mailed the code {code[1]} (reference {reference[1]})")
        self._codes = len(found)

    def _tell(self, mail: Mail, told: dict[str, State]) -> None:
        for fate in mail.fates:
            if told.get(fate.recipient) is fate.state or fate.state in {State.QUEUED, State.DELIVERING}:
                continue
            told[fate.recipient] = fate.state
            at = time.strftime("%H:%M:%S")
            if mail.ours:
                self._screen.say(f"{at} a notice of ours to {fate.recipient}: {fate.state}", style="dim")
            else:
                self._screen.about(f"{at} {fate.recipient}", line(fate, time.time()))


def _fetched(link: str) -> str:
    """A page, as a browser gets it; "" where there is none."""
    with suppress(OSError), urlopen(link, timeout=20) as answer:  # noqa: S310  our own gateway, on loopback
        return str(answer.read().decode("utf-8", "replace"))
    return ""


#: Whose hosts must not get what is about a patient.
_FELL_SHORT = frozenset({"selfsigned.example", "wrongname.example", "expired.example", "village.example"})


def _parsed(message: Message) -> EmailMessage:
    parsed = email.message_from_bytes(message.raw, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def _text(report: EmailMessage) -> str:
    part = report.get_body(("plain",))
    return "" if part is None else str(part.get_content())
