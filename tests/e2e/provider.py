"""A provider whose every answer a test decides: it holds calls until told, refuses, cuts off, hangs,
and remembers what it was asked. For volume there is sluice-stub; this one is for control."""

import collections
import http.server
import json
import os
import socket
import struct
import threading

from support import DEADLINE_S


class Call:
    """One request as it came."""

    def __init__(self, number, path, headers, data):
        self.number = number  # from 0, over all calls
        self.path = path
        self.headers = headers
        self.data = data
        self.attempt = 0  # of its content, from 1
        self.body = json.loads(data)
        # The last user message, or the input of an endpoint without messages.
        last = self.body["messages"][-1]["content"] if "messages" in self.body else \
            self.body["input"]
        self.content = str(last)


def answer(content, tokens=(3, 5)):
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "stub-model",
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1],
                      "total_tokens": sum(tokens)}}


# ---- replies: functions of (handler, call); a rule returns one of them


def ok(handler, call):
    send_json(handler, 200, answer("answer to " + call.content))


def error(status, message="no", headers=None):
    def reply(handler, _):
        send_json(handler, status, {"error": {"message": message, "type": "test"}}, headers)
    return reply


def raw(data):
    """These bytes instead of an answer, then the end of the connection."""
    def reply(handler, _):
        handler.wfile.write(data)
        handler.close_connection = True
    return reply


def reset(handler, _):
    """A TCP reset instead of an answer: closed at once, with nothing sent before."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())
    handler.close_connection = True


def cut(handler, call):
    """Promises more than it sends."""
    data = json.dumps(answer(call.content)).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    raw(head.encode() + data[:len(data) // 2])(handler, call)


def hang(handler, _):
    """Says nothing until the caller hangs up or the provider is stopped."""
    handler.connection.settimeout(DEADLINE_S * 3)
    try:
        handler.connection.recv(1)
    except OSError:
        pass
    handler.close_connection = True


def send_json(handler, status, value, headers=None):
    send_bytes(handler, status, json.dumps(value).encode(), headers)


def send_bytes(handler, status, data, headers=None):
    handler.send_response(status)
    for name, text in (headers or {}).items():
        handler.send_header(name, text)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        call = self.server.owner.note(self.path, dict(self.headers), data)
        try:
            self.server.owner.wait_open()
            self.server.owner.rule(call)(self, call)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        finally:
            self.server.owner.end_call()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    owner = None

    def handle_error(self, request, client_address):
        pass


class Provider:
    """`rule(call)` gives the reply of each call. While closed, calls wait before their answer."""

    def __init__(self, test, rule=lambda call: ok):
        self.rule = rule
        self.calls = []
        self.asked = collections.Counter()  # how often each content was asked for
        self.running = 0
        self.changed = threading.Condition()
        self.open = True
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.owner = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        test.addCleanup(self.stop)

    def stop(self):
        self.release()
        self.server.shutdown()
        self.server.server_close()

    def note(self, path, headers, data):
        with self.changed:
            call = Call(len(self.calls), path, headers, data)
            self.calls.append(call)
            self.running += 1
            self.asked[call.content] += 1
            call.attempt = self.asked[call.content]
            self.changed.notify_all()
            return call

    def end_call(self):
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def hold(self):
        with self.changed:
            self.open = False

    def release(self):
        with self.changed:
            self.open = True
            self.changed.notify_all()

    def wait_open(self):
        with self.changed:
            self.changed.wait_for(lambda: self.open)

    def _wait(self, what, is_so):
        with self.changed:
            if not self.changed.wait_for(is_so, DEADLINE_S):
                raise AssertionError(f"the provider did not see {what}; calls {len(self.calls)}, "
                                     f"running {self.running}")

    def wait_calls(self, count):
        self._wait(f"{count} calls", lambda: len(self.calls) >= count)

    def wait_running(self, count):
        self._wait(f"{count} calls at once", lambda: self.running >= count)

    def counts(self):
        """How often each content was asked for, so far."""
        with self.changed:
            return dict(self.asked)
