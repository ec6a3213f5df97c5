"""Waiting for a job in an event loop."""

from __future__ import annotations

import asyncio

from ._cipherlm import Answer, Job


async def result(job: Job) -> Answer:
    """The answer of a job; a task that is cancelled gives its job up."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, job.result)
    except asyncio.CancelledError:
        job.cancel()
        raise
