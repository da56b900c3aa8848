"""One chaos run: producers, dispatchers, agents and faults for so long; then peace, and the auditor's verdict."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from bus.connection import CONNECTION_ERRORS
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import Finding
from tests.chaos.auditor import DEEDS, Evidence, judge
from tests.chaos.faults import OF_AGENTS, OF_DISPATCHERS
from tests.chaos.journal import Journal
from tests.chaos.producers import Producer
from tests.chaos.residue import residue
from tests.chaos.server_faults import OF_ITS_DISK, OF_THE_NETWORK, OF_THE_SERVER
from tests.chaos.stage import POOL, Stage
from tests.chaos.strikes import Fault, Strikes, insisted, lane

AHEAD: Final = 1500
"""Tasks whose outcomes one producer awaits at a time."""
DRAIN_S: Final = 120.0
"""How long the last outcomes may take once there is peace."""
SETTLE_S: Final = 30.0
"""How long the server may take then to be tidy."""
DISK_MB: Final = 256
DISK_MB_PER_MINUTE: Final = 100
TASKS_PER_MINUTE: Final = 5_500
"""What all producers together submit, on the average."""
FULL_MINUTES: Final = 10.0
TEN: Final = 10
"""How often each kind of fault shall strike in `FULL_MINUTES` with work in flight."""


Lane = tuple[tuple[Fault, ...], list[str], int]
"""Faults, their victims, and how many lanes share them."""


@dataclass
class Report:
    """What came of a run."""

    seed: int
    minutes: float
    submitted: int
    executions: int
    drained_s: float
    strikes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each fault how often it struck, and how often there was work in flight."""
    never: int = 0
    """How many kinds of faults did not strike at all."""
    findings: list[str] = field(default_factory=list)

    def shortfalls(self) -> list[str]:
        """Return in words which kinds struck too seldom with work in flight: so far this run proves nothing."""
        due = int(TEN * min(1.0, self.minutes / FULL_MINUTES))
        seldom = [
            f"{fault} met work in flight {at_work} times, and {due} are due"
            for fault, (_, at_work) in sorted(self.strikes.items())
            if at_work < due
        ]
        return seldom + ([f"{self.never} kinds of faults never struck"] if due and self.never else [])

    def lines(self) -> list[str]:
        """Return it for people."""
        told = [
            f"seed {self.seed}: {self.submitted} tasks, {self.executions} executions",
            f"{self.minutes * 60:.0f} s of faults; all outcomes were known {self.drained_s:.1f} s later",
        ]
        told += [
            f"  {fault:<34} struck {number:>3} times, {at_work:>3} with work in flight"
            for fault, (number, at_work) in sorted(self.strikes.items())
        ]
        told += [f"falls short: {line}" for line in self.shortfalls()]
        told.append(f"findings: {len(self.findings)}")
        return told + [f"  {finding}" for finding in self.findings]


async def run(
    folder: Path,
    *,
    seed: int,
    minutes: float,
    agents: int = 4,
    ahead: int = AHEAD,
    tasks: int | None = None,
    losing: Fault | None = None,
    say: Callable[[str], None] = print,
) -> Report:
    """Run; the folder keeps all evidence. `losing` is one more fault, by which the server loses its data."""
    random = Random(seed)
    rate = (TASKS_PER_MINUTE * minutes if tasks is None else tasks) / (60 * minutes)
    async with Stage(folder, agents=agents, disk_mb=round(DISK_MB + DISK_MB_PER_MINUTE * minutes)) as stage:
        strikes = Strikes(Journal(stage.journals / "faults.jsonl"))
        say(f"seed {seed}, {stage.server.kind}, evidence in {folder}")
        if stage.no_disk:
            say(f"no disk is filled, since none may be mounted: {stage.no_disk}")
        give_up = asyncio.Event()
        share = rate / len(stage.producers)
        producers = [
            Producer(
                *(name, stage.proxies[name].url, POOL, stage.journals, Random(random.random())),
                rate=share,
                ahead=ahead,
            )
            for name in stage.producers
        ]
        producing = [asyncio.create_task(producer.run(give_up)) for producer in producers]
        lanes = _lanes(stage, losing)
        await _strike(stage, strikes, random, lanes, minutes * 60, producers, say)
        for producer in producers:
            producer.stopping.set()
        peace = time.monotonic()
        await asyncio.wait(producing, timeout=DRAIN_S)
        give_up.set()
        await asyncio.gather(*producing)
        drained = time.monotonic() - peace
        left = await _settled(stage)
        left += [f"the doctor: {found.kind} {found.subject} {found.detail}" for found in await _examined(stage)]
        left += [f"a leader's audit: {line}" for line in stage.audits()]
        evidence = Evidence(stage.journals)
        report = Report(seed, minutes, sum(p.submitted for p in producers), len(evidence.executions), drained)
        report.findings = [*stage.unexpected, *judge(evidence, strikes.done), *left]
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for strike in strikes.done:
        counts[strike.fault][0] += 1
        counts[strike.fault][1] += evidence.in_flight(strike) > 0
    for deed, number in evidence.deeds.items():
        counts[deed] = [number, number]
    kinds = {fault for faults, _, _ in lanes for fault in faults}
    report.never = len(kinds) + len(DEEDS) - len(counts)
    report.strikes = {fault: (number, at_work) for fault, (number, at_work) in counts.items()}
    return report


def _lanes(stage: Stage, losing: Fault | None) -> list[Lane]:
    half = len(stage.agents) // 2
    of_the_server = OF_THE_SERVER if stage.no_disk else OF_THE_SERVER + OF_ITS_DISK
    return [
        (OF_AGENTS, stage.agents[:half], 2),
        (OF_AGENTS, stage.agents[half:], 2),
        (OF_DISPATCHERS, [""], 1),
        (of_the_server if losing is None else (*of_the_server, losing), [""], 1),
        (OF_THE_NETWORK, [""], 1),
    ]


async def _strike(
    stage: Stage,
    strikes: Strikes,
    random: Random,
    lanes: list[Lane],
    seconds: float,
    producers: list[Producer],
    say: Callable[[str], None],
) -> None:
    """Let the faults loose, for so long; return when the last of them is over and everything runs."""
    over = asyncio.Event()
    loops = [
        asyncio.create_task(lane(faults, victims, strikes, stage, Random(random.random()), over, of=of))
        for faults, victims, of in lanes
    ]
    until = time.monotonic() + seconds
    told = 0.0
    while time.monotonic() < until:
        await asyncio.sleep(0.5)
        stage.check()
        if time.monotonic() - told > 10:
            told = time.monotonic()
            ended = sum(producer.ended for producer in producers)
            say(f"{until - told:6.1f} s left, {ended} tasks have ended, {len(strikes.done)} strikes")
        for loop in loops:
            if loop.done():
                loop.result()
    over.set()
    await asyncio.gather(*loops)
    stage.heal()


async def _examined(stage: Stage) -> list[Finding]:
    """Return what `callboard doctor` finds in a pool at peace."""
    findings: list[Finding] = await insisted(Auditor(stage.redis, stage.names).run)
    return findings


async def _settled(stage: Stage) -> list[str]:
    """Return what is left in the server when it has had its time."""
    until = time.monotonic() + SETTLE_S
    left: list[str] = ["the server was never asked"]
    while left and time.monotonic() < until:
        stage.check()
        with suppress(*CONNECTION_ERRORS):
            left = await residue(stage.redis, stage.names, stage.dispatchers)
        await asyncio.sleep(0.5)
    return left
