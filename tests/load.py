#!/usr/bin/env python3
"""Holds a server under load against its targets, and prints a record as JSON.

    tests/load.py SELA_BINARY [--only NAME,...] [--requests N] [--rounds N]

overhead      64 connections of short /embed: processor time of the server's own threads a request, apart
              from those that encode; at most 60 us
interference  p99 of /embed while bulk /embed_batch runs, against the p99 of an idle server; at most 5 times
overload      four times as many texts at once as the queue has places, by short requests and a small queue and
              by batches and the queue as it is by default: only 200, and 429 with Retry-After
memory        anonymous memory over 200,000 requests of mixed length, after a warm-up; flat within 5 %
connections   10,000 idle connections opened and closed eight times. A few seconds after they are closed, what
              they took has been given back: at most 5 % more than before the first
start         from exec to ready, median of five; at most 500 ms

Linux only. Needs nothing but Python. Talk goes to stderr; exit code 1 when a target is missed. Run it
on a release build and an idle machine; what else ran is the reader's to judge by `load`.
"""

import argparse
import asyncio
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path

loader = importlib.machinery.SourceFileLoader("served", str(Path(__file__).with_name("served")))
sys.dont_write_bytecode = True
served = importlib.util.module_from_spec(importlib.util.spec_from_loader("served", loader))
loader.exec_module(served)

EMBED = "/api/v1/metal4/embed"
BATCH = "/api/v1/metal4/embed_batch"
WORDS = "river stone light water walk meet bread morning city shepherd king house garden winter letter road".split()
TICK = 1e6 / os.sysconf("SC_CLK_TCK")


def note(text):
    print(text, file=sys.stderr, flush=True)


def text_of(words):
    return " ".join(random.choice(WORDS) for _ in range(words))


class Caller:
    """A kept connection that asks one thing after another."""

    def __init__(self, server, source=None):
        self.server = server
        host, port = server.url.removeprefix("http://").rsplit(":", 1)
        self.address = {"host": host, "port": int(port)}
        if source:
            self.address["local_addr"] = (source, 0)

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(**self.address)
        return self

    async def __aexit__(self, *error):
        self.writer.close()
        await self.writer.wait_closed()

    async def ask(self, path, body=None):
        """Status, headers and body of an answer."""
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nhost: sela\r\nauthorization: Bearer {self.server.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        given = await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, given


async def embed(caller, words):
    status, _, body = await caller.ask(EMBED, {"text": text_of(words)})
    if status != 200:
        raise RuntimeError(f"/embed answered {status}: {body[:200]}")


async def share(server, callers, count, work):
    """`count` pieces of work by so many callers, each on a connection of its own."""
    left = iter(range(count))

    async def one():
        async with Caller(server) as caller:
            for _ in left:
                await work(caller)

    await asyncio.gather(*(one() for _ in range(callers)))


def cpu(server):
    """Microseconds of processor time: of the threads that encode, and of all others, ended ones included."""

    def spent(stat):
        name, rest = stat.read_text().split("(", 1)[1].rsplit(") ", 1)
        fields = rest.split()
        return name, (int(fields[11]) + int(fields[12])) * TICK

    process = Path(f"/proc/{server.pid}")
    _, whole = spent(process / "stat")
    threads = (spent(task / "stat") for task in (process / "task").iterdir())
    encode = sum(used for name, used in threads if name not in ("sela", "sela-server"))
    return {"serve": whole - encode, "encode": encode}


def anonymous(server):
    """Bytes that the process made."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


async def overhead(asked):
    rounds = []
    with served.Server(asked.sela) as server:
        short = lambda caller: embed(caller, 4)
        await share(server, 64, 2000, short)
        for _ in range(asked.rounds):
            count, before, began = 4000, cpu(server), time.perf_counter()
            await share(server, 64, count, short)
            took, after = time.perf_counter() - began, cpu(server)
            each = {kind: (after[kind] - before[kind]) / count for kind in after}
            rounds.append({"serve_us": each["serve"], "encode_us": each["encode"], "requests_s": count / took})
            note(f"  {rounds[-1]}")
    median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return median | {"target": "serve_us <= 60", "met": median["serve_us"] <= 60}


async def latencies(server, count):
    took = []
    async with Caller(server) as caller:
        for _ in range(count):
            began = time.perf_counter()
            await embed(caller, 6)
            took.append((time.perf_counter() - began) * 1e3)
    return took


async def interference(asked):
    rounds = []
    with served.Server(asked.sela) as server:
        await latencies(server, 200)
        texts = [text_of(24) for _ in range(256)]

        async def bulk():
            async with Caller(server) as caller:
                while True:
                    status, _, _ = await caller.ask(BATCH, {"texts": texts})
                    if status != 200:
                        raise RuntimeError(f"/embed_batch answered {status}")

        async def bulk_texts():
            async with Caller(server) as caller:
                _, _, body = await caller.ask("/api/v1/metal4/stats")
            return next(lane["texts"] for lane in json.loads(body)["embedder"]["lanes"] if lane["lane"] == "bulk")

        for _ in range(asked.rounds):
            idle = await latencies(server, 1000)
            tasks = [asyncio.create_task(bulk()) for _ in range(4)]
            await latencies(server, 50)
            before, began = await bulk_texts(), time.perf_counter()
            busy = await latencies(server, 1000)
            done, took = await bulk_texts() - before, time.perf_counter() - began
            for task in tasks:
                if task.done():
                    task.result()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            each = {"idle_p50_ms": quantile(idle, 0.5), "idle_p99_ms": quantile(idle, 0.99)}
            each |= {"busy_p50_ms": quantile(busy, 0.5), "busy_p99_ms": quantile(busy, 0.99)}
            rounds.append(each | {"times": each["busy_p99_ms"] / each["idle_p99_ms"], "bulk_texts_s": done / took})
            note(f"  {rounds[-1]}")
    median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return median | {"target": "times <= 5", "met": median["times"] <= 5 and median["bulk_texts_s"] > 0}


async def overload(asked):
    answers, faults = {"short": {}, "bulk": {}}, []

    async def ask(kind, caller, path, body):
        status, headers, answer = await caller.ask(path, body)
        answers[kind][status] = answers[kind].get(status, 0) + 1
        if status not in (200, 429) or (status == 429 and int(headers.get("retry-after", 0)) < 1):
            faults.append(f"{kind}, {status}: {answer[:200]}")

    places = 64
    with served.Server(asked.sela, [f"limits.queue_texts_max={places}"]) as server:
        work = lambda caller: ask("short", caller, EMBED, {"text": text_of(8)})
        await share(server, 4 * places, 20_000, work)
        async with Caller(server) as caller:
            await embed(caller, 4)
    # The queue as it is by default, filled by batches.
    places, batch = 16_384, 256
    with served.Server(asked.sela) as server:
        work = lambda caller: ask("bulk", caller, BATCH, {"texts": [text_of(8) for _ in range(batch)]})
        await share(server, 4 * places // batch, 16 * places // batch, work)
        async with Caller(server) as caller:
            await embed(caller, 4)
    told = {kind: {str(status): n for status, n in sorted(of.items())} for kind, of in answers.items()}
    met = not faults and all(of.get(200, 0) > 0 and of.get(429, 0) > 0 for of in answers.values())
    return {"answers": told, "faults": faults[:5], "target": "only 200 and 429", "met": met}


async def memory(asked):
    def words():
        kind = random.random()
        return random.randint(1, 8) if kind < 0.9 else random.randint(8, 32) if kind < 0.99 else random.randint(32, 300)

    with served.Server(asked.sela) as server:
        work = lambda caller: embed(caller, words())
        await share(server, 64, max(asked.requests // 20, 1000), work)
        curve, step = [anonymous(server)], max(asked.requests // 20, 1)
        for _ in range(20):
            await share(server, 64, step, work)
            curve.append(anonymous(server))
            note(f"  {len(curve) * step:,} requests: {curve[-1] / 2**20:.1f} MiB")
    middle = statistics.median(curve)
    spread = max(abs(at - middle) for at in curve) / middle
    told = {"requests": 20 * step, "mib": [round(at / 2**20, 1) for at in curve], "spread": spread}
    return told | {"target": "spread <= 0.05", "met": spread <= 0.05}


async def connections(asked):
    wanted, rounds = 10_000, []
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # The server closes silent connections after a while; that is to be none of the matter here.
    with served.Server(asked.sela, ["limits.head_ms=600000"]) as server:
        async with Caller(server) as watcher:

            async def settle(count):
                """Waits until the server has so many connections besides the watcher's."""
                for _ in range(600):
                    _, _, page = await watcher.ask("/metrics")
                    is_now = float(page.decode().split("\nsela_connections ")[1].split("\n")[0])
                    if is_now == count + 1:
                        return
                    await asyncio.sleep(0.05)
                raise RuntimeError(f"the server has {is_now:.0f} connections, not {count + 1}")

            await embed(watcher, 4)
            before = anonymous(server)
            for turn in range(8):
                # An address of its own for each round: the ports of the last are not free at once.
                callers = [Caller(server, f"127.0.1.{turn + 1}") for _ in range(wanted)]
                for at in range(0, wanted, 500):
                    await asyncio.gather(*(caller.__aenter__() for caller in callers[at : at + 500]))
                await settle(wanted)
                held = anonymous(server)
                await asyncio.gather(*(caller.__aexit__() for caller in callers))
                await settle(0)
                # Memory is given back a second after many have ended.
                await asyncio.sleep(3)
                rounds.append({"open_mib": round(held / 2**20, 1), "closed_mib": round(anonymous(server) / 2**20, 1)})
                note(f"  {rounds[-1]}")
    told = {"before_mib": round(before / 2**20, 1), "rounds": rounds}
    told["kib_a_connection"] = round((rounds[0]["open_mib"] - told["before_mib"]) * 1024 / wanted, 1)
    flat = max(each["closed_mib"] for each in rounds) <= 1.05 * told["before_mib"]
    return told | {"target": "closed_mib <= 1.05 * before_mib", "met": flat}


async def start(asked):
    took = []
    for _ in range(5):
        with served.Server(asked.sela) as server:
            took.append(round(server.start_ms))
    note(f"  {took}")
    median = statistics.median(took)
    return {"ms": took, "median_ms": median, "target": "median_ms <= 500", "met": median <= 500}


PARTS = {part.__name__: part for part in (overhead, interference, overload, memory, connections, start)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sela", help="the binary")
    parser.add_argument("--only", default=",".join(PARTS), metavar="NAME,...")
    parser.add_argument("--requests", type=int, default=200_000, help="of `memory`; default 200,000")
    parser.add_argument("--rounds", type=int, default=5, help="of `overhead` and `interference`; medians are told")
    asked = parser.parse_args()
    names = asked.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    random.seed(20261126)
    record = {"cores": os.cpu_count()}
    for name in names:
        note(name)
        before = os.getloadavg()[0]
        record[name] = asyncio.run(PARTS[name](asked)) | {"load": [before, os.getloadavg()[0]]}
    print(json.dumps(record, indent=1))
    sys.exit(0 if all(record[name]["met"] for name in names) else 1)


if __name__ == "__main__":
    main()
