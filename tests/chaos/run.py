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
from tests.chaos.auditor import Evidence, judge
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
DISK_MB: Final = 256
DISK_MB_PER_MINUTE: Final = 100
"""How long the server may take then to be tidy."""


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
    findings: list[str] = field(default_factory=list)

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
        told.append(f"findings: {len(self.findings)}")
        return told + [f"  {finding}" for finding in self.findings]


async def run(
    folder: Path,
    *,
    seed: int,
    minutes: float,
    agents: int = 4,
    ahead: int = AHEAD,
    say: Callable[[str], None] = print,
) -> Report:
    """Run; the folder keeps all evidence."""
    random = Random(seed)
    async with Stage(folder, agents=agents, disk_mb=round(DISK_MB + DISK_MB_PER_MINUTE * minutes)) as stage:
        strikes = Strikes(Journal(stage.journals / "faults.jsonl"))
        say(f"seed {seed}, {stage.server.kind}, evidence in {folder}")
        if stage.no_disk:
            say(f"no disk is filled, since none may be mounted: {stage.no_disk}")
        give_up = asyncio.Event()
        producers = [
            Producer(name, stage.proxies[name].url, POOL, stage.journals, Random(random.random()), ahead=ahead)
            for name in stage.producers
        ]
        producing = [asyncio.create_task(producer.run(give_up)) for producer in producers]
        await _strike(stage, strikes, random, minutes * 60, producers, say)
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
    report.strikes = {fault: (number, at_work) for fault, (number, at_work) in counts.items()}
    return report


async def _strike(
    stage: Stage,
    strikes: Strikes,
    random: Random,
    seconds: float,
    producers: list[Producer],
    say: Callable[[str], None],
) -> None:
    """Let the faults loose, for so long; return when the last of them is over and everything runs."""
    over = asyncio.Event()
    half = len(stage.agents) // 2
    lanes: list[tuple[tuple[Fault, ...], list[str], int]] = [
        (OF_AGENTS, stage.agents[:half], 2),
        (OF_AGENTS, stage.agents[half:], 2),
        (OF_DISPATCHERS, [""], 1),
        (OF_THE_SERVER if stage.no_disk else OF_THE_SERVER + OF_ITS_DISK, [""], 1),
        (OF_THE_NETWORK, [""], 1),
    ]
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
