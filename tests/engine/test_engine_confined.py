"""After warm-up the engine opens no file, makes no thread and imports no module."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, resource, sys, threading
from pathlib import Path
from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.params import Grammar, SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

engine = Engine(Path(sys.argv[1]), EngineConfig(dtype=sys.argv[2], kv_pages=200, threads=2))
engine.start()
engine.warm_up()
threads, modules = len(os.listdir("/proc/self/task")), set(sys.modules)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # every open, socket, pipe or dup fails now
try:
    os.open("/dev/null", os.O_RDONLY)
    print("the limit does not hold")
except OSError:
    pass
finished, done = [], threading.Semaphore(0)

def listener(event):
    if event.finish is not None:
        finished.append(event.finish)
        done.release()

text = engine.template.render([{"role": "user", "content": "a \\u00e9 \\U0001f600"}])
tokens = engine.tokenizer.encode(text)
for index, length in enumerate((1, 5, 17, 40, 130, 300)):
    for kind in ({"temperature": 0}, {"seed": 1}, {"top_p": 0.9}, {"top_k": 5, "min_p": 0.1}):
        params = SamplingParams(max_tokens=20, stop=("zzz",), ignore_eos=True, **kind)
        prompt = (tokens * 20)[:length]
        engine.submit(GenerationRequest(f"{index}{kind}", prompt, params), listener)
for _ in range(24):
    done.acquire()
schema = '{"type": "object", "properties": {"a": {"pattern": "^[a-z]+x?$"}}, "required": ["a"]}'
for index, kind in enumerate((
    {"repetition_penalty": 1.2, "presence_penalty": 1, "logit_bias": ((5, 2.0),)},
    {"temperature": 0, "logprobs": 5},
    {"grammar": Grammar("json_schema", schema)},
    {"grammar": Grammar("lark", 'start: "a" b*\\nb: /[xyz]{2,5}/ | %json {"type": "object"}')},
    {"grammar": Grammar("choice", '["yes", "no"]')},
)):
    params = SamplingParams(max_tokens=6, **kind, ignore_eos=True)
    engine.submit(GenerationRequest(f"s{index}", tokens * 4, params), listener)
    done.acquire()
engine.submit(GenerationRequest("c", tokens, SamplingParams(max_tokens=200)), listener)
engine.cancel("c")
done.acquire()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(sorted(set(finished)), len(os.listdir("/proc/self/task")) - threads,
      sorted(set(sys.modules) - modules))
engine.stop()
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_warm_engine_needs_no_file_and_no_new_thread(
    dtype: str, tiny: tuple[Path, object]
) -> None:
    result = subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT, str(tiny[0]), dtype],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['cancelled', 'length'] 0 []"
