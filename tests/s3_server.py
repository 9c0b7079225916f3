"An S3 server of its own on 127.0.0.1, and a proxy before it that misbehaves on request."
import contextlib, http.client, os, re, subprocess, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ACCESS, SECRET = "TESTACCESSKEYID", "test/secret+access/key"


def environment(endpoint, **others):
    "AWS variables for this server and nothing of the person's own configuration."
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, **others}


@contextlib.contextmanager
def serve(folder):
    "Address of a moto server in a process of its own; gone when the block ends."
    log = folder / "moto.log"
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | environment("")
    del env["AWS_ENDPOINT_URL"]
    with open(log, "wb") as out: process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))):
            assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-2000:]
            time.sleep(.05)
        yield found[1]
    finally: process.terminate(); process.wait(20)


def only_known_keys(address, wanted):
    "Whether the server refuses credentials that it has not given out, as a real one does."
    request = urllib.request.Request(f"{address}/moto-api/reset-auth", data=b"0" if wanted else b"inf", method="POST", headers={"Content-Type": "application/octet-stream"})
    urllib.request.urlopen(request, timeout=10).read()


class Proxy(ThreadingHTTPServer):
    "Passes requests on. `conditions`: 'pass', 'refuse' (501, as a server does that knows no conditional writes), 'drop', 'conflict' (409, the first time) or 'bare' (412 that does not say which condition); `fail`: [method, pattern, how many] of requests that get a 500."
    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.conditions, self.fail, self.seen = target.removeprefix("http://"), "pass", None, []

    @property
    def address(self): return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address): pass   # a client that went away


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments): pass

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"): self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body))) if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length); self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def do(self):
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        conditional = "If-None-Match" in self.headers
        server.seen.append((self.command, self.path, conditional))
        if server.fail and self.command == server.fail[0] and re.search(server.fail[1], self.path) and server.fail[2] > 0:
            server.fail[2] -= 1
            return self.answer(500, [("Content-Type", "application/xml")], b"<Error><Code>InternalError</Code><Message>no</Message></Error>")
        if conditional and server.conditions == "refuse": return self.answer(501, [("Content-Type", "application/xml")], b"<Error><Code>NotImplemented</Code><Message>A header implies functionality that is not implemented</Message></Error>")
        if conditional and server.conditions == "conflict":
            server.conditions = "pass"
            return self.answer(409, [("Content-Type", "application/xml")], b"<Error><Code>ConditionalRequestConflict</Code><Message>no</Message></Error>")
        headers = {k: v for k, v in self.headers.items() if not (conditional and server.conditions == "drop" and k.lower() == "if-none-match")}
        connection = http.client.HTTPConnection(server.target, timeout=30)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            found = response.read()
            if response.status == 412 and server.conditions == "bare": found = b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>"
            self.answer(response.status, response.getheaders(), found)
        finally: connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do


@contextlib.contextmanager
def proxy(target):
    "A proxy before the server at `target`."
    server = Proxy(target)
    thread = threading.Thread(target=server.serve_forever, daemon=True); thread.start()
    try: yield server
    finally: server.shutdown(); server.server_close(); thread.join(5)
