"""web.py FOLDER: serves the folder's files at http://127.0.0.1:PORT/MODE/NAME, where MODE says what goes wrong. Prints the port; ends when
its standard input does. /count/ is how many requests there were before, in 8 digits."""
import collections
import http.server
import os
import pathlib
import re
import sys
import threading
import time

FOLDER = pathlib.Path(sys.argv[1])
REDIRECTS = {"loop": "/loop/{}", "hop": "/plain/{}", "ftp": "ftp://127.0.0.1/{}", "file": "file:///etc/{}"}
STATUS = {"missing": 404, "gone": 410, "forbidden": 403, "broken": 500, "away": 503}
DROPS = {"drop": 300_000, "dropall": 700_000}  # bytes after which the connection is closed
times = collections.Counter()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet, or nearly

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        mode, name = re.sub("^http://[^/]*", "", self.path)[1:].split("/", 1)
        if mode == "count":
            return self.answer(200, {}, b"%08d" % times.total())
        times[self.path] += 1
        if mode == "mute" or (FOLDER / "mute").exists():
            time.sleep(5)
            self.close_connection = True
            return
        if not self.headers["User-Agent"].startswith("millrace/") or self.headers["Accept-Encoding"] != "identity":
            return self.answer(400, {})
        if mode in REDIRECTS:
            return self.answer(302, {"Location": REDIRECTS[mode].format(name)}, b"elsewhere")
        if mode in STATUS or mode == "busy" and times[self.path] in (1, 2, 4):
            return self.answer(STATUS.get(mode, 503), {}, b"no")
        if mode.startswith("later-") and times[self.path] == 1:
            return self.answer(503, {"Retry-After": mode.removeprefix("later-")}, b"no")
        self.give(mode, (FOLDER / name).read_bytes())

    def give(self, mode, content):
        state = "2" if mode == "changed" and times[self.path] > 1 else "1"
        headers = {"ETag": f'"{state}"'} if mode != "plain" else {"Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT"}
        if mode.startswith("coding-"):
            headers["Content-Encoding"] = mode.removeprefix("coding-")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        if mode == "other" and times[self.path] > 1:
            wanted = re.fullmatch(r"(\d+)-(\d+)", "7-70")
        if not wanted or mode in ("noranges", "nolength", "dropall", "rangeless"):
            if mode == "nolength":
                self.close_connection = True
                headers["Content-Length"] = None
            return self.send(mode, 200, headers, content)
        begin, end = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        if begin >= len(content):
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"no such range")
        if mode == "nothing" and times[self.path] > 1:
            end = begin
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        self.send(mode, 206, headers, content[begin:end])

    def send(self, mode, status, headers, body):
        if mode == "silent" and times[self.path] > 1:
            self.answer(status, {"Content-Length": str(len(body)), **headers}, body[:1000])
            self.wfile.flush()
            time.sleep(5)
        elif mode == "halves" and len(body) > 1:
            self.answer(status, {"Content-Length": str(len(body)), **headers}, body[:len(body) // 2])
            self.wfile.flush()
            time.sleep(0.2)
            self.wfile.write(body[len(body) // 2:])
        elif len(body) > DROPS.get(mode, len(body)):
            self.answer(status, {"Content-Length": str(len(body)), **headers}, body[:DROPS[mode]])
            self.close_connection = True
        else:
            self.answer(status, headers, body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # a client that goes away
        pass


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
os._exit(0)
