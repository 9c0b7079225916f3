"A small HTTP server on 127.0.0.1 that misbehaves on request."
import contextlib, hashlib, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    "`files`: name -> bytes. `requests`: (name, Range header or None). `served_bytes`: of all bodies."
    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.served_bytes = dict(files), [], 0
        self.ranges, self.etags, self.cut_after, self.statuses, self.pause_s, self.retry_after = True, True, [], [], 0.0, None   # cut_after: bytes of the next bodies; statuses: of the next answers

    @property
    def address(self): return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address): pass   # a client that went away


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments): pass

    def do_GET(self):
        server, name = self.server, self.path.lstrip("/").split("?")[0]
        server.requests.append((name, self.headers.get("Range")))
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_response(status); self.send_header("Content-Length", "0")
            if server.retry_after: self.send_header("Retry-After", server.retry_after)
            return self.end_headers()
        if name not in server.files: return self.send_error(404)
        body, etag = server.files[name], f'"{hashlib.md5(server.files[name]).hexdigest()}"'
        start = int(self.headers["Range"].split("=")[1].rstrip("-")) if server.ranges and self.headers.get("Range") and self.headers.get("If-Range") == etag else 0
        if start >= len(body) > 0:
            self.send_response(416); self.send_header("Content-Range", f"bytes */{len(body)}"); self.send_header("Content-Length", "0"); self.end_headers(); return
        self.send_response(206 if start else 200)
        if start: self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.etags: self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body) - start)); self.end_headers()
        cut = server.cut_after.pop(0) if server.cut_after else None
        body = body[start:][:cut]
        for at in range(0, len(body), 1 << 15):
            self.wfile.write(body[at:at + (1 << 15)]); self.wfile.flush(); server.served_bytes += len(body[at:at + (1 << 15)])
            if server.pause_s: threading.Event().wait(server.pause_s)
        if cut is not None: self.connection.close()


@contextlib.contextmanager
def serve(files):
    "A server that runs while the block does."
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True); thread.start()
    try: yield server
    finally: server.shutdown(); server.server_close(); thread.join(5)
