"""A server in a small insecure ring with the tiny shipped model, and a client's keys beside it."""

import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RING = ["--insecure-ring", "9", "--length", "8"]


class World:
    """Killed and swept away at the end of a `with`."""

    def __init__(self, program=None, limits=None):
        self.program = program or os.environ.get("CIPHERLM_COMMAND", str(ROOT / "target/release/cipherlm"))
        self.folder = tempfile.TemporaryDirectory(prefix="cipherlm-peer-")
        self.children = []
        self.model = str(ROOT / "models/tiny")
        (self.path / "limits").write_text(json.dumps(limits or {}))
        self.log = (self.path / "log").open("ab")
        self.server = self.start("serve", "--model", self.model, "--data", str(self.path / "data"),
                                 "--listen", "127.0.0.1:0", "--plain-http",
                                 "--limits", str(self.path / "limits"), *RING)
        self.token = (self.path / "data/token").read_text()

    @property
    def path(self):
        return pathlib.Path(self.folder.name)

    def environment(self):
        return {**os.environ, "CIPHERLM_PRICES": "builtin", "XDG_CONFIG_HOME": "/nonexistent"}

    def start(self, *args):
        """Starts a command that listens; its address."""
        child = subprocess.Popen([self.program, *args, "--json"], stdout=subprocess.PIPE,
                                 stderr=self.log, text=True, env=self.environment())
        self.children.append(child)
        return json.loads(child.stdout.readline())["listening"]

    def call(self, *args):
        done = subprocess.run([self.program, *args, "--json"], check=True, text=True,
                              stdout=subprocess.PIPE, env=self.environment())
        return json.loads(done.stdout)

    def to_server(self):
        return ["--server", self.server, "--token-file", str(self.path / "data/token")]

    def keys(self):
        keys = str(self.path / "keys")
        self.call("keygen", "--model", self.model, "--out", keys, *RING)
        self.call("push", "--keys", keys, *self.to_server())
        return keys

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.kill()
            child.wait()
        self.log.close()
        self.folder.cleanup()
