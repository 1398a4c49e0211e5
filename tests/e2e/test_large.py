#!/usr/bin/env python3
"""Bodies and answers of 64 MiB work; one byte more is refused with a reason."""

import json
import sys

sys.dont_write_bytecode = True
from support import MODEL, SluiceCase, batch_line, content_of, main, write_lines  # noqa: E402
from provider import Provider, answer, send_json  # noqa: E402

BODY_BYTES_MAX = 64 * 1024 * 1024


def line_with_body(custom_id, body_bytes):
    """A batch line whose body has exactly so many bytes."""
    empty = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": ""}]})
    line = batch_line(custom_id, "@")
    return line.replace("@", "x" * (body_bytes - len(empty)))


class Large(SluiceCase):
    def test_largest_body_and_one_past(self):
        provider = Provider(self, lambda call: lambda handler, _: send_json(
            handler, 200, answer("short")))
        self.start_pair(provider.url, provider={"timeout_s": 60.0})
        largest = write_lines(self.dir / "largest.jsonl", [line_with_body("big", BODY_BYTES_MAX)])
        result = self.submit_wait(largest, "--job", "large")["big"]
        self.assertEqual(result["sluice"]["state"], "completed")
        self.assertEqual(len(provider.calls[0].data), BODY_BYTES_MAX)
        self.assertEqual(json.loads(largest.read_text())["body"], provider.calls[0].body)
        over = write_lines(self.dir / "over.jsonl", [line_with_body("big2", BODY_BYTES_MAX + 1)])
        done = self.submit(over, "--job", "large", status=3)
        self.assert_one_line_error(done, r"over\.jsonl:1:\d+: ", "64 MiB")
        self.assertEqual(len(provider.calls), 1)

    def test_answer_of_60_mib(self):
        text = "y" * (60 * 1024 * 1024)
        provider = Provider(self, lambda call: lambda handler, _: send_json(
            handler, 200, answer(text)))
        self.start_pair(provider.url, provider={"timeout_s": 60.0})
        result = self.submit_wait(self.prompts(1), "--job", "large")["q-0"]
        self.assertEqual(result["sluice"]["state"], "completed", str(result)[:500])
        self.assertTrue(content_of(result) == text, "the answer came back changed")

    def test_bodies_of_all_sizes_together(self):
        provider = Provider(self)
        self.start_pair(provider.url, provider={"timeout_s": 60.0})
        sizes = [100, 4000, 4096, 5000, 65536, 262144, 1 << 20, (1 << 20) + 1, 3 << 20, 9 << 20]
        path = write_lines(self.dir / "sizes.jsonl",
                           (line_with_body(f"s-{size}", size) for size in sizes))
        results = self.submit_wait(path)
        self.assertEqual({r["sluice"]["state"] for r in results.values()}, {"completed"})
        self.assertEqual(sorted(len(call.data) for call in provider.calls), sizes)


if __name__ == "__main__":
    main()
