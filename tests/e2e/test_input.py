#!/usr/bin/env python3
"""A bad line stops the tool with FILE:LINE:COLUMN and a reason; a good file goes through."""

import json
import sys

sys.dont_write_bytecode = True
from support import (MODEL, SluiceCase, batch_line, chat_body, main, need_data,  # noqa: E402
                     read_results, write_lines)
from provider import Provider  # noqa: E402

GOOD = json.loads(batch_line("good", "good"))


def changed(**changes):
    """The good line with members changed; None takes one away."""
    line = {**GOOD, **changes}
    return json.dumps({k: v for k, v in line.items() if v is not None}).encode()


BAD_LINES = {
    "not json": b"hello",
    "cut off": batch_line("a", "a").encode()[:-5],
    "two values": b"{} {}",
    "an array": b"[1]",
    "a string": b'"x"',
    "empty object": b"{}",
    "single quotes": b"{'custom_id':'a'}",
    "trailing comma": b'{"id":"a","prompt":"x","model":"stub-model",}',
    "NaN": b'{"id":"a","prompt":NaN,"model":"stub-model"}',
    "id is a number": changed(custom_id=7),
    "id is empty": changed(custom_id=""),
    "id too long": changed(custom_id="x" * 257),
    "no body": changed(body=None),
    "body is text": changed(body="text"),
    "body without a model": changed(body={"messages": []}),
    "unknown url": changed(url="/v1/nothing"),
    "method GET": changed(method="GET"),
    "unknown member": changed(custom="x"),
    "unknown member of sluice": changed(sluice={"priorty": 5}),
    "sluice is text": changed(sluice="x"),
    "priority 10": changed(sluice={"priority": 10}),
    "priority text": changed(sluice={"priority": "5"}),
    "max_attempts 0": changed(sluice={"max_attempts": 0}),
    "timeout negative": changed(sluice={"timeout_s": -1}),
    "deadline no time": changed(sluice={"deadline": "tomorrow"}),
    "cache unknown": changed(sluice={"cache": "maybe"}),
    "on_unknown unknown": changed(sluice={"on_unknown": "maybe"}),
    "prompt and body": json.dumps({**GOOD, "prompt": "x"}).encode(),
    "prompt is a number": b'{"id":"a","prompt":5,"model":"stub-model"}',
    "short without a model": b'{"id":"a","prompt":"x"}',
    "member twice": b'{"id":"a","id":"b","prompt":"x","model":"stub-model"}',
    "invalid utf-8": b'{"id":"a","prompt":"\xff\xfe","model":"stub-model"}',
    "overlong utf-8": b'{"id":"a","prompt":"\xc0\xaf","model":"stub-model"}',
    "surrogate utf-8": b'{"id":"a","prompt":"\xed\xa0\x80","model":"stub-model"}',
    "control byte": b'{"id":"a","prompt":"\x01","model":"stub-model"}',
    "nested": b'{"id":"a","model":"stub-model","prompt":' + b"[" * 100000,
    "NUL": b"\0",
}

# Files of the JSON test suite that are wrong as a text of their own and right inside an object.
FINE_INSIDE = ("n_single_space", "n_structure_no_data")


class BadLines(SluiceCase):
    def setUp(self):
        super().setUp()
        self.configure(self.provider("http://127.0.0.1:9/v1"))

    def dry_run(self, data, *args):
        path = self.dir / "in.jsonl"
        path.write_bytes(data)
        return self.tool("sluice-submit", path, "--dry-run", *args)

    def test_bad_lines_name_file_line_and_column(self):
        for name, line in BAD_LINES.items():
            with self.subTest(name):
                done = self.dry_run(batch_line("first", "first").encode() + b"\n" + line + b"\n")
                self.assertEqual(done.returncode, 3, (done.stdout, done.stderr))
                self.assertRegex(done.stderr, r"in\.jsonl:2:[1-9]\d*: \S")

    def test_column_is_where_it_goes_wrong(self):
        done = self.dry_run(b'{"id":"a","prompt":x}\n')
        self.assertRegex(done.stderr, r"in\.jsonl:1:20: ")

    def test_duplicate_ids_in_one_file(self):
        lines = [batch_line("a", "one"), batch_line("b", "two"), batch_line("a", "three")]
        done = self.dry_run("\n".join(lines).encode())
        self.assertEqual(done.returncode, 3, done.stdout)
        self.assertRegex(done.stderr, r"in\.jsonl:3:\d+: ")

    def test_good_variants(self):
        text = batch_line("a", "one") + "\r\n\n  \n" + batch_line("b", "two")  # no last line feed
        done = self.dry_run(("\ufeff" + text).encode())
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_dry_run_needs_no_broker_and_changes_nothing(self):
        done = self.dry_run(batch_line("a", "one").encode())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(self.state_dir.exists())

    def test_missing_file(self):
        done = self.tool("sluice-submit", self.dir / "nothing.jsonl", "--dry-run")
        self.assertEqual(done.returncode, 3)
        self.assert_one_line_error(done, r"nothing\.jsonl")

    def test_bad_usage(self):
        for args in (["--no-such-option"], ["--priority", "10", "x"], ["--priority", "x", "x"],
                     ["a", "b"], ["--job", "", "x"]):
            with self.subTest(args):
                done = self.tool("sluice-submit", *args)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertNotEqual(done.stderr, "")

    def test_help_and_version(self):
        for program in ("sluice-broker", "sluice-worker", "sluice-submit", "sluice-status",
                        "sluice-ctl"):
            with self.subTest(program):
                done = self.tool(program, "--config", "/nowhere", "--help")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("--config", done.stdout)
                done = self.tool(program, "--version", "--config", "/nowhere")
                self.assertEqual(done.returncode, 0)
                self.assertRegex(done.stdout, r"\d+\.\d+\.\d+")

    def test_json_test_suite(self):
        """What RFC 8259 accepts is accepted inside a body, what it refuses is refused."""
        good = json.dumps({**GOOD, "body": {**chat_body("x"), "m": "@"}}).encode()
        counts = {"y": 0, "n": 0}
        for path in sorted(need_data("json-test-suite/test_parsing").glob("[yn]_*.json")):
            data = path.read_bytes().strip(b"\r\n")
            if b"\n" in data or b"\r" in data or path.stem in FINE_INSIDE:
                continue  # a line cannot hold it; or it is wrong only as a whole text
            kind = path.name[0]
            counts[kind] += 1
            with self.subTest(path.name):
                done = self.dry_run(good.replace(b'"@"', data))
                self.assertEqual(done.returncode, {"y": 0, "n": 3}[kind], done.stderr)
        self.assertGreater(counts["y"], 80)
        self.assertGreater(counts["n"], 150)


class StoppedInTheMiddle(SluiceCase):
    def test_mended_file_goes_on_and_nothing_is_done_twice(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        lines = self.prompts(50).read_text().splitlines()
        path = write_lines(self.dir / "in.jsonl", lines[:30] + ["{broken"] + lines[30:])
        done = self.submit(path, "--job", "mended", "--wait", status=3)
        self.assertRegex(done.stderr, r"in\.jsonl:31:\d+: ")
        self.assertRegex(done.stderr, r"\b30\b")
        self.wait_queue(completed=30)
        write_lines(path, lines)
        self.assertEqual(len(self.submit_wait(path, "--job", "mended")), 50)
        self.assertEqual(set(provider.counts().values()), {1})

    def test_prompts_of_naughty_strings(self):
        strings = json.loads(need_data("naughty-strings/blns.json").read_text(encoding="utf-8"))
        strings = [text for text in strings if text]
        provider = Provider(self)
        self.start_pair(provider.url)
        path = write_lines(self.dir / "n.jsonl", (
            json.dumps({"id": f"n-{i}", "prompt": text, "model": MODEL}, ensure_ascii=i % 2 == 0)
            for i, text in enumerate(strings)))
        results = self.submit_wait(path)
        for i, text in enumerate(strings):
            content = results[f"n-{i}"]["response"]["body"]["choices"][0]["message"]["content"]
            self.assertEqual(content, "answer to " + text)

    def test_empty_file(self):
        self.start_pair(Provider(self).url)
        path = write_lines(self.dir / "empty.jsonl", [])
        self.assertEqual(read_results(self.submit(path, "--wait").stdout), {})


if __name__ == "__main__":
    main()
