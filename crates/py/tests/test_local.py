"""The whole way in one process, in a small ring."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import cipherlm as cl
from cipherlm import errors

from .conftest import PROMPT


def test_a_prompt_is_answered_as_in_the_clear(
    model: cl.Model, plan: cl.Plan, client: cl.Client, server: cl.LocalServer
) -> None:
    job = server.run(client.encrypt(PROMPT))
    answer = job.result()
    assert job.status == "done"
    raw, rounded = client.decrypt(answer, raw=True), client.decrypt(answer)
    clear = model.clear(model.tokens(PROMPT), plan)
    for row in (raw, rounded, clear):
        assert row.dtype == np.float64 and row.shape == (model.vocab,)
        row[0] += 1.0  # a copy: it can be written
        row[0] -= 1.0
    # What the circuit computes, but for the errors of a small ring, which are there.
    assert 0.0 < np.abs(raw - clear).max() < 0.5
    # Rounded to multiples of one step, no further away than that takes.
    step = np.diff(np.unique(rounded)).min()
    assert np.allclose(rounded / step, np.round(rounded / step), atol=1e-6)
    assert step / 4 < np.abs(rounded - raw).max() <= 0.51 * step
    assert len(np.unique(rounded)) < len(np.unique(raw))
    top = client.decrypt(answer, top=5)
    assert [token for _, token, _ in top] == list(np.argsort(-raw, kind="stable")[:5])
    assert [logit for _, _, logit in top] == [rounded[token] for _, token, _ in top]
    assert top[0][0] == model.text([top[0][1]])
    assert client.decrypt(job, top=1) == top[:1]


def test_the_noise_machine_predicts_errors_of_that_size(model: cl.Model, plan: cl.Plan) -> None:
    ids = model.tokens(PROMPT)
    clear, noise = model.clear(ids, plan), model.noise(ids, plan)
    assert 0.0 < np.abs(noise - clear).max() < 0.5
    assert not np.array_equal(noise, model.noise(ids, plan, seed=2))
    assert np.array_equal(noise, model.noise(list(ids), plan, seed=1))


def test_events_go_from_queue_to_one_end(client: cl.Client, server: cl.LocalServer) -> None:
    prompt = client.encrypt(PROMPT)
    job = server.run(prompt)
    events = list(job.events())
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) > 20 and [s["step"] for s in steps] == sorted(s["step"] for s in steps)
    assert events[-1]["event"] == "done" and events[-1]["bytes"] == len(job.result())
    assert sum(event["event"] in ("done", "failed", "cancelled") for event in events) == 1
    # One prompt, one answer: runs are deterministic.
    assert server.run(prompt).result().to_bytes() == job.result().to_bytes()


def test_a_job_can_be_cancelled_and_waited_for(client: cl.Client, server: cl.LocalServer) -> None:
    job = server.run(client.encrypt(PROMPT))
    with pytest.raises(TimeoutError):
        job.result(timeout=0.0)
    next(iter(job.events()))
    job.cancel()
    with pytest.raises(errors.Cancelled):
        job.result()
    assert job.status == "cancelled" and list(job.events())[-1] == {"event": "cancelled"}


def test_a_job_is_awaited_while_the_loop_goes_on(
    client: cl.Client, server: cl.LocalServer
) -> None:
    async def both() -> tuple[cl.Answer, int]:
        job = server.run(client.encrypt(PROMPT))
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        answer = await job
        ticking.cancel()
        return answer, ticks

    answer, ticks = asyncio.run(both())
    assert ticks > 3 and len(client.decrypt(answer)) > 100


def test_a_task_that_is_cancelled_gives_its_job_up(
    client: cl.Client, server: cl.LocalServer
) -> None:
    async def impatient() -> cl.Job:
        job = server.run(client.encrypt(PROMPT))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, timeout=0.01)
        return job

    job = asyncio.run(impatient())
    with pytest.raises(errors.Cancelled):
        job.result()


def test_python_goes_on_while_keys_are_made(plan: cl.Plan, empty: Path) -> None:
    told: list[tuple[int, int]] = []
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    client = cl.Client.create(empty, plan, progress=lambda now, all: told.append((now, all)))
    done.set()
    thread.join()
    assert ticks > 3, "the interpreter was held"
    assert len(told) > 10 and max(told)[0] <= told[0][1]
    assert cl.Client.open(empty, plan).key_id == client.key_id


def test_keys_that_were_interrupted_are_completed(plan: cl.Plan, empty: Path) -> None:
    def stop(now: int, all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cl.Client.create(empty, plan, progress=stop)
    there = {path.name for path in (empty / "server").glob("*.key")}
    secret = (empty / "secret.key").read_bytes()
    client = cl.Client.create(empty, plan, resume=True)
    assert {path.name for path in (empty / "server").glob("*.key")} >= there
    assert (empty / "secret.key").read_bytes() == secret and client.folder == empty


def test_ctrl_c_stops_between_steps(client: cl.Client, server: cl.LocalServer) -> None:
    # A fast machine ends one job before the signal comes: the last of several waits for its turn.
    jobs = [server.run(client.encrypt(PROMPT)) for _ in range(6)]
    job = jobs[-1]
    # What runs in the background of a shell is started deaf to this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.01, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            job.result()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(errors.Cancelled):
        job.result()


def test_secrets_are_neither_shown_nor_pickled(client: cl.Client) -> None:
    secret = (client.folder / "secret.key").read_bytes()
    shown = repr(client) + str(client) + repr(client.__class__.__dict__)
    assert client.key_id[:12] in shown
    assert all(secret[at : at + 8].hex() not in shown for at in range(len(secret) - 8))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(client, protocol)


def test_plans_are_priced_and_explained(model: cl.Model, plan: cl.Plan, empty: Path) -> None:
    assert plan.insecure and "NO SECURITY" in repr(plan) and plan.ring_degree == 512
    assert plan.tokens == 8 and plan.model == model.name and plan.profile == "insecure"
    assert 0 < plan.key_gib < plan.memory_gib and plan.seconds > 0
    assert "layers.1." in plan.explain()
    plan.save(empty)
    served = cl.Plan.load(empty)
    assert served.id == plan.id
    with pytest.raises(errors.PlanRefused, match="Model.plan"):
        served.explain()
    with pytest.raises(errors.PlanRefused, match="Model.plan"):
        cl.LocalServer(model, served)


def test_a_plan_of_another_party_leads_into_no_small_ring_unasked(
    plan: cl.Plan, server: cl.LocalServer, tmp_path: Path
) -> None:
    plan.save(tmp_path / "plan")
    served = cl.Plan.load(tmp_path / "plan")
    with pytest.raises(errors.PlanRefused, match="insecure=True"):
        cl.Client.create(tmp_path / "keys", served)
    client = cl.Client.create(tmp_path / "keys", served, insecure=True)
    server.push(client)
    prompt = client.encrypt(PROMPT)
    assert len(prompt) == plan.prompt_bytes
    answer = server.run(prompt).result()
    assert len(answer) == plan.answer_bytes and len(client.decrypt(answer, top=3)) == 3


def test_ranges_are_certified_on_one_text_and_checked_on_another(
    model: cl.Model, empty: Path
) -> None:
    tale = "Once upon a time there was a little girl named Lily. She had a red ball."
    other = "One day, Tom and his dog went to the park to play. They were very happy."
    card = model.certify([tale, tale + other], held_out=[other], window=16)
    assert len(card.ranges) > 10 and card.windows[0] >= 4
    for name, _, (low, high), (least, most), degree, _ in card.ranges:
        assert least <= low <= high <= most and (degree is None or degree >= 1), name
    assert card.violations == sum(row[-1] for row in card.ranges)
    html = card._repr_html_()
    assert html.count("<tr>") == len(card.ranges) + 1
    card.model.save(empty)
    assert cl.from_pretrained(empty).name == model.name
    with pytest.raises(errors.ModelRefused, match="proves nothing"):
        model.certify([tale], held_out=[tale], window=16)


def test_numpy_is_not_imported_before_a_number_is_asked_for() -> None:
    look = "import sys, cipherlm; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


def test_the_package_is_imported_at_once() -> None:
    def seconds(code: str) -> float:
        clock = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - clock

    own = min(seconds("import cipherlm") for _ in range(5))
    none = min(seconds("pass") for _ in range(5))
    assert own - none < 0.3, f"{own:.2f} s, and {none:.2f} s for nothing"
