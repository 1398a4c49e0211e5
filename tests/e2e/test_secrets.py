#!/usr/bin/env python3
"""Keys are in requests and nowhere else; prompts and answers are not in logs."""

import pathlib
import sys

sys.dont_write_bytecode = True
from support import KEY, SluiceCase, main, read_results  # noqa: E402
from provider import Provider, error, ok  # noqa: E402

PROMPT = "canary-prompt-9b1c"


class Secrets(SluiceCase):
    def command_lines(self):
        pids = [process.pid for process in self.processes]
        pids += [worker["pid"] for worker in self.status()["workers"]]
        return b"".join(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)

    def test_key_and_prompts_stay_where_they_belong(self):
        provider = Provider(self, lambda call: error(500, "no") if call.attempt == 1 else ok)
        self.start_pair(provider.url, log_level="debug")
        path = self.prompts(3, PROMPT)
        output = self.submit(path, "--job", "secret", "--wait").stdout
        self.assertEqual(len(read_results(output)), 3)
        self.assertEqual({call.headers["Authorization"] for call in provider.calls},
                         {f"Bearer {KEY}"})
        places = {"results": output.encode(), "status": str(self.status()).encode(),
                  "page": self.tool("sluice-status").stdout.encode(),
                  "argv": self.command_lines()}
        for name, data in places.items():
            self.assertNotIn(KEY.encode(), data, name)
        self.broker.terminate()
        self.worker.terminate()
        for process in (self.broker, self.worker):
            self.assertNotIn(KEY, process.log(), process.name)
            self.assertNotIn(PROMPT, process.log(), process.name)
        for file in self.dir.rglob("*"):
            if file.is_file():
                self.assertNotIn(KEY.encode(), file.read_bytes(), str(file))

    def test_broker_needs_no_key(self):
        """A broker without the key in its environment serves; only the worker calls."""
        provider = Provider(self)
        self.configure(self.provider(provider.url))
        key = self.env.pop("SLUICE_TEST_KEY")
        self.start_broker()
        self.env["SLUICE_TEST_KEY"] = key
        self.start_worker()
        self.assertEqual(len(self.submit_wait(self.prompts(1))), 1)

    def test_missing_key_is_named(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        del self.env["SLUICE_TEST_KEY"]
        self.start_broker()
        self.start_worker()
        results = self.submit_wait(self.prompts(1), "--job", "nokey", status=1)
        self.assertEqual(results["q-0"]["error"]["code"], "key_missing")


if __name__ == "__main__":
    main()
