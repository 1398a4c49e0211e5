#!/usr/bin/env python3
"""Prompts in, answers out: every answer belongs to its task."""

import json
import sys

sys.dont_write_bytecode = True
from support import (MODEL, SluiceCase, batch_line, content_of, fnv1a, main, need_data,  # noqa: E402
                     read_results, write_lines)
from provider import Provider  # noqa: E402


def body_bytes(line):
    """The exact bytes of the member "body" of a batch line."""
    start = line.index('"body"') + len('"body"')
    start = line.index("{", start)
    _, end = json.JSONDecoder().raw_decode(line, start)
    return line[start:end].encode()


class Answers(SluiceCase):
    def assert_echo(self, result, body):
        """The stub's answer says which request it belongs to: the hash of the bytes it got."""
        self.assertEqual(result["sluice"]["state"], "completed", result)
        self.assertIsNone(result["error"])
        self.assertEqual(result["response"]["status_code"], 200)
        self.assertEqual(content_of(result).split(":")[:2], ["echo", f"{fnv1a(body):016x}"])

    def test_gsm8k_all_prompts_with_64_in_flight(self):
        prompts = need_data("gsm8k-test/test.jsonl").read_text(encoding="utf-8").splitlines()
        lines = [batch_line(f"gsm8k-{i}", json.loads(line)["question"])
                 for i, line in enumerate(prompts)]
        self.start_pair(self.start_stub("--latency-ms=5"))
        results = self.submit_wait(write_lines(self.dir / "gsm8k.jsonl", lines))
        self.assertEqual(len(results), 1319)
        for i, line in enumerate(lines):
            self.assert_echo(results[f"gsm8k-{i}"], body_bytes(line))
        queue = self.status()["queue"]
        self.assertEqual((queue["submitted"], queue["completed"]), (1319, 1319))
        self.assertEqual(queue["provider_calls"], 1319)

    def test_batch_samples(self):
        lines = []
        for path in sorted(need_data("batch-samples").rglob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.strip():
                    lines.append(line.replace(json.loads(line)["custom_id"],
                                              f"{path.stem}-{len(lines)}", 1))
        self.start_pair(self.start_stub(), provider={"models": ["*"]})
        results = self.submit_wait(write_lines(self.dir / "batch.jsonl", lines))
        self.assertEqual(len(results), len(lines))
        for line in lines:
            self.assert_echo(results[json.loads(line)["custom_id"]], body_bytes(line))

    def test_short_lines(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        path = write_lines(self.dir / "short.jsonl", [
            json.dumps({"id": "a", "prompt": "What is a sluice?", "model": MODEL}),
            json.dumps({"id": "b", "prompt": "Grüß Gott ☃ \"quoted\"", "model": MODEL,
                        "system": "Be short."})])
        results = self.submit_wait(path)
        self.assertEqual(content_of(results["a"]), "answer to What is a sluice?")
        self.assertEqual(content_of(results["b"]), "answer to Grüß Gott ☃ \"quoted\"")
        messages = {call.content: call.body["messages"] for call in provider.calls}
        self.assertEqual(messages["Grüß Gott ☃ \"quoted\""][0],
                         {"role": "system", "content": "Be short."})

    def test_id_and_model_from_the_command_line(self):
        self.start_pair(Provider(self).url)
        path = write_lines(self.dir / "short.jsonl", ['{"prompt":"one"}', '{"prompt":"two"}'])
        done = self.submit(path, "--wait", "--ordered", "--model", MODEL)
        answers = [content_of(json.loads(line)) for line in done.stdout.splitlines()]
        self.assertEqual(answers, ["answer to one", "answer to two"])

    def test_ordered_keeps_the_order_of_the_input(self):
        self.start_pair(self.start_stub("--latency-ms=5", "--jitter-ms=20", "--seed=7"))
        done = self.submit(self.prompts(300), "--wait", "--ordered")
        ids = [json.loads(line)["custom_id"] for line in done.stdout.splitlines()]
        self.assertEqual(ids, [f"q-{i}" for i in range(300)])

    def test_standard_input_and_output_file(self):
        self.start_pair(self.start_stub())
        text = self.prompts(5).read_text()
        output = self.dir / "answers.jsonl"
        done = self.submit("-", "--wait", "--output", output, input=text)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(read_results(output.read_text())), 5)

    def test_the_line_tells_what_the_queue_knows(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        path = self.prompts(1, stage="features", service_id="billing")
        result = self.submit_wait(path)["q-0"]
        about = result["sluice"]
        self.assertRegex(result["id"], r"^task_[0-9a-f]{16}$")
        self.assertEqual((about["state"], about["provider"], about["attempts"]),
                         ("completed", "stub", 1))
        self.assertEqual((about["stage"], about["service_id"]), ("features", "billing"))
        self.assertGreaterEqual(about["call_ms"], 0)
        queue = self.status()["queue"]
        self.assertEqual((queue["input_tokens"], queue["output_tokens"]), (3, 5))
        self.assertEqual(provider.calls[0].path, "/v1/chat/completions")

    def test_responses_and_embeddings(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        lines = [json.dumps({"custom_id": name, "method": "POST", "url": f"/v1/{name}",
                             "body": {"model": MODEL, "input": name}})
                 for name in ("responses", "embeddings")]
        self.submit_wait(write_lines(self.dir / "lines.jsonl", lines))
        self.assertEqual({call.path for call in provider.calls},
                         {"/v1/responses", "/v1/embeddings"})


if __name__ == "__main__":
    main()
