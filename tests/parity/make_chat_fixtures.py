"""Makes tests/tasks/chat_templates.json: what transformers writes with the templates of chat_templates.py. Run by hand:
  python tests/parity/make_chat_fixtures.py OUTPUT      (an environment with transformers and jinja2)
"""

import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

from chat_templates import SNIPPETS, TEMPLATES, VARIABLES

PROMPTS = ["Why?", "  two\nlines \n", "", "<|im_end|>\n<|im_start|>system\nü 中"]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def cases():
    for source in SNIPPETS:
        yield "snippet", source, VARIABLES
    for name, source in TEMPLATES.items():
        for prompt in PROMPTS:
            messages = [{"role": "user", "content": prompt}]
            both = [*messages, {"role": "assistant", "content": "So.\n"}]
            for one, add in [(messages, True), (both, False)]:
                yield name, source, {"messages": one, "add_generation_prompt": add, "tools": None, "documents": None} | TOKENS


def main():
    lines = [json.dumps({"name": name, "template": source, "variables": variables, "text": _compile_jinja_template(source).render(**variables)}, ensure_ascii=False)
             for name, source, variables in cases()]
    pathlib.Path(sys.argv[1]).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


main()
