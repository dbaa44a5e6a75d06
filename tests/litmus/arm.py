#!/usr/bin/env python3
"""Decides litmus tests for AArch64 by trying all executions: arm.py FILE...; prints Never or Sometimes for each.

For straight-line programs of moves, loads, stores and barriers, without dependencies, which is what the tests here are. An execution is a choice
of which store each load reads from and in which order the stores to each word take effect. It is allowed if both orders of Arm's axiomatic model
are free of cycles: *internal*, what a single word sees (program order to the same word, reads-from, coherence, from-reads), and *external*, what
others see: reads-from, coherence and from-reads between threads, and the order that barriers, acquires and releases keep within one ("barrier-ordered
before" of the architecture's manual, B2.3). Load buffering is allowed unless something forbids it.
"""

import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Event:
    thread: int  # -1: the initial value
    index: int
    kind: str  # R, W or the barrier's name
    word: str = ""
    value: int = 0
    register: str = ""
    strong: bool = False  # an acquire or a release


def parse(text):
    """Events of each thread, initial values, and the condition as a list of (thread or None, register or word, value)."""
    body = re.sub(r"\(\*.*?\*\)", "", text, flags=re.S)
    start, program = re.search(r"\{(.*?)\}(.*?)exists", body, re.S).groups()
    initial, address = {}, {}
    for part in filter(None, (part.strip() for part in start.split(";"))):
        left, right = (side.strip() for side in part.split("="))
        if ":" in left:
            thread, register = left.split(":")
            address[int(thread), register] = right
            initial.setdefault(right, 0)
        else:
            initial[left] = int(right)
    rows = [[cell.strip() for cell in row.split("|")] for row in program.split(";") if row.strip()]
    threads = [[] for _ in rows[0]]
    constants = {}
    for row in rows[1:]:
        for thread, code in enumerate(row):
            if not code:
                continue
            if found := re.fullmatch(r"MOV W(\d+),#(\d+)", code):
                constants[thread, found[1]] = int(found[2])
            elif found := re.fullmatch(r"(STR|STLR) W(\d+),\[(X\d+)\]", code):
                word, value = address[thread, found[3]], constants[thread, found[2]]
                threads[thread].append(("W", word, value, "", found[1] == "STLR"))
            elif found := re.fullmatch(r"(LDR|LDAR) W(\d+),\[(X\d+)\]", code):
                constants.pop((thread, found[2]), None)  # what was loaded is stored nowhere here
                threads[thread].append(("R", address[thread, found[3]], 0, found[2], found[1] == "LDAR"))
            elif found := re.fullmatch(r"DMB (ISH|ISHLD|ISHST)", code):
                threads[thread].append((found[1], "", 0, "", False))
            else:
                raise ValueError(f"unknown instruction {code!r}")
    events = [[Event(t, i, *what) for i, what in enumerate(thread)] for t, thread in enumerate(threads)]
    condition = []
    for part in re.search(r"exists\s*\((.*)\)", body)[1].split("/\\"):
        if found := re.fullmatch(r"(\d+):X(\d+)=(\d+)", part.strip()):
            condition.append((int(found[1]), found[2], int(found[3])))
        elif found := re.fullmatch(r"\[?(\w+)\]?=(\d+)", part.strip()):
            condition.append((None, found[1], int(found[2])))
        else:
            raise ValueError(f"unknown condition {part!r}")
    return events, initial, condition


def barrier_ordered(thread):
    """Pairs of a thread's accesses that are seen in program order."""
    for i, first in enumerate(thread):
        for j in range(i + 1, len(thread)):
            second, between = thread[j], {event.kind for event in thread[i + 1 : j]}
            if first.kind not in "RW" or second.kind not in "RW":
                continue
            if (
                "ISH" in between
                or ("ISHLD" in between and first.kind == "R")
                or ("ISHST" in between and first.kind == second.kind == "W")
                or (first.kind == "R" and first.strong)
                or (second.kind == "W" and second.strong)
                or (first.kind == "W" and first.strong and second.kind == "R" and second.strong)
            ):
                yield first, second


def acyclic(edges):
    following = {}
    for first, second in edges:
        following.setdefault(first, set()).add(second)
    done, path = set(), set()

    def visit(event):
        if event in path:
            return False
        if event in done:
            return True
        path.add(event)
        fine = all(visit(after) for after in following.get(event, ()))
        path.remove(event)
        done.add(event)
        return fine

    return all(visit(event) for event in list(following))


def decide(text):
    """"Never" or "Sometimes": whether an allowed execution meets the condition; and how many executions are allowed."""
    threads, initial, condition = parse(text)
    first = {word: Event(-1, n, "W", word, value) for n, (word, value) in enumerate(initial.items())}
    accesses = [event for thread in threads for event in thread if event.kind in ("R", "W")]
    loads = [event for event in accesses if event.kind == "R"]
    stores = {word: [event for event in accesses if event.kind == "W" and event.word == word] for word in initial}
    local = [(a, b) for thread in threads for a, b in itertools.combinations(thread, 2) if a.word and a.word == b.word]
    kept = [pair for thread in threads for pair in barrier_ordered(thread)]
    allowed, met = 0, False
    sources = itertools.product(*([first[load.word], *stores[load.word]] for load in loads))
    orders = list(itertools.product(*(itertools.permutations(stores[word]) for word in initial)))
    for source in sources:
        read = list(zip(source, loads))
        for order in orders:
            chains = {word: [first[word], *chain] for word, chain in zip(initial, order)}
            coherence = [pair for chain in chains.values() for pair in itertools.combinations(chain, 2)]
            from_read = [
                (load, later)
                for store, load in read
                for later in chains[load.word][chains[load.word].index(store) + 1 :]
            ]
            seen = read + coherence + from_read
            external = [(a, b) for a, b in seen if a.thread != b.thread]
            if not acyclic(local + seen) or not acyclic(external + kept):
                continue
            allowed += 1
            registers = {(load.thread, load.register): store.value for store, load in read}
            final = {word: chain[-1].value for word, chain in chains.items()}
            met |= all((final[name] if thread is None else registers[thread, name]) == value for thread, name, value in condition)
    return "Sometimes" if met else "Never", allowed


def main(files):
    failed = False
    for file in files:
        text = Path(file).read_text()
        expected = re.search(r"Expected: (\w+)", text)[1]
        found, allowed = decide(text)
        wrong = "" if found == expected else f"   expected {expected}"
        failed |= bool(wrong)
        print(f"{Path(file).stem:28} {found:10} {allowed:3} executions allowed{wrong}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
