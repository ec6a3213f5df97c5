"""Encrypted transformer inference: the server never sees the prompt or the answer.

    import cipherlm as cl

    m = cl.from_pretrained("stories-2x128")
    plan = m.plan(tokens=32)
    client = cl.Client.create("keys", plan)
    server = cl.LocalServer(m, plan)  # or cl.connect("https://host", token=...)
    server.push(client)
    job = server.run(client.encrypt("Once upon a time"))
    client.decrypt(job.result(), top=5)
"""

from __future__ import annotations

from . import errors
from ._cipherlm import (
    Answer,
    Card,
    Client,
    Job,
    LocalServer,
    Model,
    Plan,
    Prompt,
    Server,
    __version__,
    connect,
    from_pretrained,
)

__all__ = [
    "Answer",
    "Card",
    "Client",
    "Job",
    "LocalServer",
    "Model",
    "Plan",
    "Prompt",
    "Server",
    "__version__",
    "connect",
    "errors",
    "from_pretrained",
]
