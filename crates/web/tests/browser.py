"""The page in a headless Chromium, from the secret's file to the next token, with everything on the
line recorded: neither text nor tokens nor secret may be in it.

    cargo xtask page
    pip install playwright
    python3 crates/web/tests/browser.py --cipherlm target/release/cipherlm --page target/page

Starts a server, a line that records, and `cipherlm page`, in a small insecure ring; with --full the
shipped model at 128-bit parameters, which takes minutes and 9 GiB. Ends in PASS or an error.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
PROMPT = "One day a cat"

def wasm_that_traps():
    """Memory, and the exports that the page calls; `offer` traps."""

    def section(number, body):
        return bytes([number, len(body)]) + body

    def vector(items):
        return bytes([len(items)]) + b"".join(items)

    def code(body):
        return bytes([len(body) + 2, 0]) + body + b"\x0b"

    def export(name, kind, index):
        return bytes([len(name)]) + name.encode() + bytes([kind, index])

    none_to_int, int_to_int = b"\x60\x00\x01\x7f", b"\x60\x01\x7f\x01\x7f"
    return b"".join(
        [
            b"\0asm\x01\0\0\0",
            section(1, vector([none_to_int, int_to_int])),
            section(3, vector([b"\x01", b"\x01", b"\x00"])),
            section(5, vector([b"\x00\x02"])),
            section(
                7,
                vector(
                    [
                        export("memory", 2, 0),
                        export("input", 0, 0),
                        export("result", 0, 1),
                        export("result_length", 0, 1),
                        export("offer", 0, 2),
                    ]
                ),
            ),
            section(10, vector([code(b"\x41\x10"), code(b"\x41\x00"), code(b"\x00")])),
        ]
    )


class Programs:
    """Programs of ours, ended with the test."""

    def __init__(self, program, folder):
        self.program, self.folder, self.running = program, folder, []
        self.env = dict(os.environ, CIPHERLM_PRICES="builtin", XDG_CONFIG_HOME="/nonexistent")
        self.env.pop("CIPHERLM_CONFIG", None)

    def done(self, *args):
        line = [self.program, *args, "--json"]
        out = subprocess.run(line, env=self.env, capture_output=True, text=True, timeout=900)
        assert out.returncode == 0, f"{args}: {out.stderr}"
        return json.loads(out.stdout)

    def listening(self, *args):
        log = open(self.folder / f"{args[0]}.log", "w")
        child = subprocess.Popen(
            [self.program, *args, "--json"], env=self.env, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.running.append(child)
        line = child.stdout.readline()
        assert line, f"{args} did not start: {(self.folder / f'{args[0]}.log').read_text()}"
        return json.loads(line)["listening"]

    def stop(self):
        for child in self.running:
            child.send_signal(signal.SIGTERM)
        for child in self.running:
            child.wait(timeout=60)


class Line:
    """A line to the server that keeps all bytes of both directions."""

    def __init__(self):
        self.up, self.down = bytearray(), bytearray()
        self.target = None
        self.loop = asyncio.new_event_loop()
        self.port = asyncio.run_coroutine_threadsafe(self.listen(), self.start()).result()

    def start(self):
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        return self.loop

    async def listen(self):
        server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def carry(self, reader, writer):
        there, back = await asyncio.open_connection(*self.target)

        async def pump(source, sink, kept):
            try:
                while data := await source.read(1 << 16):
                    kept.extend(data)
                    sink.write(data)
                    await sink.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, back, self.up), pump(there, writer, self.down))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def spellings(data):
    """How bytes could be written on a line."""
    yield data
    yield data.hex().encode()
    yield data.hex().upper().encode()
    yield urllib.parse.quote_from_bytes(data).encode()
    # Base64 at each of the three offsets, without the characters that its neighbours decide.
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + data).rstrip(b"=")
        yield text[2 * offset : -2] if offset else text[:-2]
    yield ",".join(map(str, data)).encode()


def windows(data, length):
    return [data[at : at + length] for at in range(len(data) - length + 1)] or [data]


def check_line(line, prompt, added, tokens, secret):
    """Nothing that was typed, made or kept secret is on the line, in any usual spelling."""
    needles = []
    for text in (prompt, prompt + added):
        # The server's tokenizer has words; six letters of the text with a space are none of it.
        needles += [w for w in windows(text.encode(), 6) if b" " in w.strip()]
        needles.append(text.encode())
    # The root stands in the last 64 bytes of the file, between identity and hash.
    needles += windows(secret[-68:], 8)
    for size in (1, 2, 4):
        packed = b"".join(token.to_bytes(4, "little")[:size] for token in tokens)
        if len(packed) >= 8 and all(token < 256**size for token in tokens):
            needles.append(packed)
    lists = [separator.join(map(str, tokens)).encode() for separator in (",", ", ", " ")]
    for data, way in ((bytes(line.up), "up"), (bytes(line.down), "down")):
        assert len(data) > 10_000, f"only {len(data)} bytes went {way}"
        for needle in needles:
            for spelling in spellings(needle):
                assert len(spelling) < 6 or spelling not in data, f"{needle!r} went {way}"
        for needle in lists:
            assert needle not in data, f"tokens went {way}"
    # A client that does not encrypt would be seen.
    naked = json.dumps({"prompt": prompt}).encode()
    assert any(spelling in naked for needle in needles for spelling in spellings(needle) if len(spelling) >= 6)


def secret_of(keys):
    return (keys / "secret.key").read_bytes()


def open_page(page, origin, token, secret):
    page.goto(origin + "/")
    page.fill("#token", token)
    page.set_input_files("#secret", str(secret))
    page.click("#open")


def shots(folder, browser, steps):
    """Pictures of a page in light, dark, and on a phone."""
    looks = {
        "light": dict(viewport={"width": 1200, "height": 900}, color_scheme="light"),
        "dark": dict(viewport={"width": 1200, "height": 900}, color_scheme="dark"),
        "phone": dict(
            viewport={"width": 390, "height": 844}, color_scheme="light", device_scale_factor=2, has_touch=True
        ),
    }
    for name, look in looks.items():
        with browser.new_context(**look) as context:
            page = context.new_page()
            for moment in steps(page):
                page.screenshot(path=str(folder / f"{name}-{moment}.png"), full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
                assert not wide, f"{name}: the page is wider than the screen at {moment}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cipherlm", default=ROOT / "target/release/cipherlm", type=Path)
    parser.add_argument("--page", default=ROOT / "target/page", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--shots", type=Path, help="a folder for pictures in light, dark and phone layouts")
    parser.add_argument("--full", action="store_true", help="128-bit parameters")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cipherlm-page-") as folder:
        programs = Programs(str(options.cipherlm.resolve()), Path(folder))
        try:
            run(options, Path(folder), programs)
        finally:
            programs.stop()
    print("PASS")


def run(options, folder, programs):
    model = [] if options.full else ["--model", str(ROOT / "models/tiny")]
    ring = [] if options.full else ["--insecure-ring", "9"]
    length = "16" if options.full else "8"
    # The page's origin has to be known before its server starts.
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    data, client, keys = folder / "data", folder / "client", folder / "keys"
    served = programs.listening(
        *["serve", *model, *ring, "--length", length, "--data", str(data), "--listen", "127.0.0.1:0"],
        *["--plain-http", "--allow-origin", origin],
    )
    to = ["--server", served, "--token-file", str(data / "token")]
    programs.done("plan", "--client", str(client), *to)
    programs.done("keygen", "--plan", str(client), "--out", str(keys), *ring)
    programs.done("push", "--keys", str(keys), *to)
    asked = programs.done("ask", "--keys", str(keys), *to, "--prompt", PROMPT, "--top", "5")
    clear = programs.done("generate", *model, "--prompt", PROMPT, "--tokens", "3")
    line = Line()
    host, target = urllib.parse.urlsplit(served).hostname, urllib.parse.urlsplit(served).port
    line.target = (host, target)
    recorded = f"http://127.0.0.1:{line.port}"
    page_args = ["page", "--dir", str(options.page), "--server", recorded, "--listen", f"127.0.0.1:{port}"]
    assert programs.listening(*page_args) == origin
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        print(f"browser   Chromium {browser.version}")
        token = (data / "token").read_text().strip()
        journey(options, browser, origin, recorded, token, keys, asked, clear, line)
        if not options.full:
            faults(browser, origin, token, keys, folder)
        if options.shots:
            options.shots.mkdir(parents=True, exist_ok=True)

            def steps(page):
                page.goto(origin + "/")
                page.wait_for_selector("#server[readonly]")
                yield "start"
                open_page(page, origin, token, keys / "secret.key")
                page.wait_for_selector("#opened:not([hidden])")
                page.fill("#prompt", PROMPT)
                page.click("#next")
                page.wait_for_selector("#steps li:nth-child(4)", state="attached", timeout=120_000)
                yield "running"
                expect(page.locator("#stage")).to_have_text(re.compile("Done"), timeout=120_000)
                yield "done"
                page.fill("#prompt", "")
                page.click("#next")
                page.wait_for_selector("#fault:not([hidden])")
                yield "fault"

            shots(options.shots, browser, steps)
        browser.close()


def journey(options, browser, origin, recorded, token, keys, asked, clear, line):
    """From the file of the secret to three tokens."""
    context = browser.new_context()
    page = context.new_page()
    words, requests = [], []
    page.on("console", lambda message: words.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: words.append(f"error: {error}"))
    context.on("request", lambda request: requests.append(request.url))
    open_page(page, origin, token, keys / "secret.key")
    page.wait_for_selector("#opened:not([hidden])", timeout=120_000)
    assert page.is_visible("#insecure") != options.full, "a small ring is named as one"
    assert page.input_value("#secret") == "" and page.input_value("#token") == ""
    page.fill("#prompt", PROMPT)
    page.click("#next")
    # Steps are shown while the server computes.
    page.wait_for_selector("#steps li", state="attached", timeout=300_000)
    done = re.compile("^Done")
    expect(page.locator("#stage")).to_have_text(done, timeout=300_000)
    added = page.text_content("#added")
    assert added == asked["text"] == clear["answer"][: len(added)], (added, asked, clear)
    rows = page.eval_on_selector_all("#top tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.textContent))")
    assert [int(row[0]) for row in rows] == [row["token"] for row in asked["top"]], (rows, asked)
    # Both are rounded to 2^-8 of the range: they differ by one step at most.
    for row, other in zip(rows, asked["top"]):
        assert abs(float(row[2]) - other["logit"]) < 0.15, (row, other)
    page.fill("#count", "2")
    page.click("#go-on")
    page.wait_for_selector("#stop:not([hidden])")
    expect(page.locator("#stage")).to_have_text(done, timeout=600_000)
    added = page.text_content("#added")
    assert added == clear["answer"], (added, clear)
    for part in ("facts", "spent"):
        terms, values = page.locator(f"#{part} dt"), page.locator(f"#{part} dd")
        for term, value in zip(terms.all_text_contents(), values.all_text_contents()):
            print(f"{term:<16} {value}")
    check_line(line, PROMPT, added, clear["tokens"], secret_of(keys))
    here = {urllib.parse.urlsplit(url).netloc for url in requests}
    allowed = {urllib.parse.urlsplit(url).netloc for url in (origin, recorded)}
    assert here == allowed, f"requests went to {here}"
    assert not words, words
    # Usable again after a reload, and nothing is left of the secret.
    page.reload()
    page.wait_for_selector("#server[readonly]")
    assert page.is_disabled("#prompt") and page.is_visible("#open-form")
    page.fill("#token", token)
    page.set_input_files("#secret", str(keys / "secret.key"))
    page.click("#open")
    page.wait_for_selector("#opened:not([hidden])", timeout=120_000)
    # Giving a job up ends it on the server too.
    page.fill("#prompt", "One day a dog")
    page.click("#next")
    page.wait_for_selector("#steps li", state="attached", timeout=300_000)
    page.click("#stop")
    expect(page.locator("#stage")).to_have_text("Stopped.", timeout=60_000)
    expect(page.locator("#requests tbody tr").first).to_contain_text("DELETE", timeout=60_000)
    page.click("#forget")
    assert page.is_visible("#open-form") and page.input_value("#prompt") == ""
    context.close()


def faults(browser, origin, token, keys, folder):
    """What goes wrong is said on the page."""
    context = browser.new_context()
    page = context.new_page()

    def says(words):
        expect(page.locator("#fault")).to_contain_text(words, timeout=60_000)
        assert page.is_visible("#open-form")

    damaged = folder / "damaged.key"
    secret = bytearray(secret_of(keys))
    secret[90] ^= 1
    damaged.write_bytes(secret)
    open_page(page, origin, token, damaged)
    says("secret.key")
    open_page(page, origin, token[::-1], keys / "secret.key")
    says("Authorization: Bearer")
    # Script and style that are not the page's own do not run.
    blocked = page.evaluate(
        """async () => {
            const seen = [];
            addEventListener("securitypolicyviolation", (e) => seen.push(e.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.injected = true";
            document.body.append(script);
            await fetch("https://example.org/").catch(() => {});
            await new Promise((resolve) => setTimeout(resolve, 300));
            return [Boolean(window.injected), [...new Set(seen)].sort()];
        }"""
    )
    assert blocked == [False, ["connect-src", "script-src-elem"]], blocked
    # A program that fails says so, and the page can be used again.
    kind = {"content-type": "application/wasm"}
    for body, words in ((wasm_that_traps(), "has ended"), (b"\0asm", "WebAssembly")):

        def answer(route, _, body=body):
            route.fulfill(body=body, headers=kind)

        page.route("**/cipherlm.wasm", answer)
        open_page(page, origin, token, keys / "secret.key")
        says(words)
        page.unroute("**/cipherlm.wasm")
    open_page(page, origin, token, keys / "secret.key")
    page.wait_for_selector("#opened:not([hidden])", timeout=60_000)
    assert not page.is_visible("#fault")
    context.close()


if __name__ == "__main__":
    sys.exit(main())
