"""OpenAI's own clients against the proxy, behind a gateway that cuts a line on which nothing came
for 60 seconds, while the server stands still for longer.

    pip install openai==3.57.0
    npm install openai@6 (in a folder whose node_modules NODE_PATH names; left out where node is absent)
    python peers/service/openai_clients.py [STILL] [SILENCE]
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import openai

from world import World

HERE = pathlib.Path(__file__).resolve().parent


def gateway(port, silence):
    """Passes connections on; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target, limit):
        source.settimeout(limit)
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for line in (source, target):
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept():
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pump, args=(near, far, None), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, silence), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def python_client(url, key):
    """A whole completion and a streamed one; their texts."""
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
    model = client.models.list().data[0].id
    asked = {"model": model, "prompt": "One day a cat", "max_tokens": 1, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    stream = client.completions.create(**asked, stream=True)
    return whole, "".join(part.choices[0].text for part in stream if part.choices)


def node_client(url, key):
    done = subprocess.run(["node", str(HERE / "openai_client.cjs"), url, key], text=True, check=True,
                          stdout=subprocess.PIPE)
    return tuple(done.stdout.rstrip("\n").split("\t"))


def main():
    still = float(sys.argv[1]) if len(sys.argv) > 1 else 75
    silence = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    with World() as world:
        keys = world.keys()
        url = world.start("proxy", "--keys", keys, "--listen", "127.0.0.1:0", *world.to_server())
        key = (pathlib.Path(keys) / "proxy-token").read_text().strip()
        port = gateway(int(url.split(":")[2].split("/")[0]), silence)
        address, server = f"http://127.0.0.1:{port}/v1", world.children[0].pid
        clients = [("python", openai.__version__, python_client)]
        if shutil.which("node") and os.environ.get("NODE_PATH"):
            clients.append(("node", "", node_client))
        expected = python_client(address, key)
        for name, version, client in clients:
            # Each of the two completions meets a server that stands still.
            done = threading.Event()

            def hinder():
                while not done.is_set():
                    os.kill(server, signal.SIGSTOP)
                    done.wait(still)
                    os.kill(server, signal.SIGCONT)
                    done.wait(3)

            thread = threading.Thread(target=hinder)
            clock = time.monotonic()
            thread.start()
            try:
                found = client(address, key)
            finally:
                done.set()
                thread.join()
            took = time.monotonic() - clock
            print(f"{name} {version}: {found} in {took:.0f} s, the server stood still for {still:.0f} s at a time")
            if found != expected or found[0] != found[1] or took < still:
                sys.exit(f"{expected} was expected")


if __name__ == "__main__":
    main()
