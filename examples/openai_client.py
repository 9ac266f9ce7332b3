"""The unmodified `openai` package, sealed: only the transport is ours.

    python examples/openai_client.py URL POLICY MODEL "question"

The API key comes from the environment variable ANCHORHOLD_API_KEY.
"""

import os
import sys

import httpx2
import openai

from anchorhold import SealedTransport


def main(url: str, policy: str, model: str, question: str) -> None:
    """Ask one question and print the answer as it comes, then what stands behind it."""
    transport = SealedTransport(policy)
    with httpx2.Client(transport=transport) as http:
        client = openai.OpenAI(
            base_url=f"{url}/v1", api_key=os.environ["ANCHORHOLD_API_KEY"], http_client=http
        )
        stream = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], stream=True
        )
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()
    receipt = transport.last_receipt
    assert receipt is not None  # the stream ended, so its receipt was verified
    print(f"trust={receipt.trust}, log entry {receipt.index}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:5])
