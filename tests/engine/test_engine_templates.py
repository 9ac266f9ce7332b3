"""Chat templates render as transformers renders them, and reach nothing beyond their messages."""

import json
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from enclave_worker.engine.errors import TemplateError
from enclave_worker.engine.templates import (
    OUTPUT_MAX_CHARS,
    SOURCE_MAX_CHARS,
    ChatTemplate,
    TemplateRefusal,
)

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is 1 < 2 & \u00e9 > '\u4e2d'?"},
    {"role": "assistant", "content": "  Yes. "},
    {"role": "user", "content": "Why?\n"},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}},
    }
]
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nDefault<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = """{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate: ' + message['content']) }}
    {% endif %}
    {% if loop.index0 == 0 and system != false %}
        {% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {% else %}{% set content = message['content'] %}{% endif %}
    {% if message.role == 'user' %}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}{{ ' ' ~ content | trim ~ ' ' ~ eos_token }}{% endif %}
{% endfor %}"""
TOOLED = """{%- set ns = namespace(count=0, last=none) -%}
{%- for m in messages if m.role != 'system' -%}
{%- set ns.count = ns.count + 1 -%}{%- set ns.last = m -%}
{%- if m.content is string and m.content.startswith('Is') -%}{%- continue -%}{%- endif -%}
[{{ loop.index }}/{{ loop.length }}] {{ m.content | replace('Why', 'How') | tojson }}
{%- endfor -%}
{%- macro show(tool) -%}{{ tool.function.name ~ ':' ~ tool | tojson(indent=2) }}{%- endmacro -%}
{%- if tools -%}{%- for tool in tools -%}{{ show(tool) }}{%- endfor -%}{%- endif -%}
{{ ns.count }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{- messages | map(attribute='role') | join(',') }} {{ '-' * 5 }} {{ 7 % 4 }}
{%- for i in range(3) -%}{{ i }}{%- endfor -%}{{ (messages | last)['content'].split('\\n')[0] }}
{%- for key, value in messages[0].items() -%}{{ key | upper }}={{ value }};{%- endfor -%}"""


@pytest.mark.parametrize("source", [CHATML, LLAMA2, TOOLED])
def test_renders_as_transformers_does(source: str) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    expected, _ = render_jinja_template(
        [MESSAGES], tools=TOOLS, chat_template=source, add_generation_prompt=True, **special
    )
    assert ChatTemplate(source, special).render(MESSAGES, TOOLS) == expected[0]


def test_without_a_generation_prompt_the_assistant_is_not_opened() -> None:
    text = ChatTemplate(CHATML).render(MESSAGES[1:2], add_generation_prompt=False)
    assert text.endswith("<|im_end|>\n")


def test_a_refusal_keeps_the_templates_words_out_of_the_message() -> None:
    with pytest.raises(TemplateRefusal) as caught:
        ChatTemplate(LLAMA2).render([{"role": "assistant", "content": "SECRET" * 100}])
    assert "SECRET" not in str(caught.value)
    assert caught.value.reason.startswith("Roles must alternate: SECRET")
    assert len(caught.value.reason) == 200


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ (messages | first).__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ range.__globals__['json'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{{ messages | map(attribute='__class__') | join }}",
    "{{ messages | selectattr('__class__.__mro__') | list }}",
    "{{ messages | map('attr', '__class__') | list }}",
    "{{ messages | attr('__class__') }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '%s' | format(messages) }}",
    "{{ dict.fromkeys }}",
    "{{ messages.append({}) }}",
    "{{ messages[0].update({}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ lipsum() }}",
    "{{ cycler.__init__ }}",
    "{% include 'other' %}",
    "{% import 'other' as o %}",
    "{% extends 'other' %}",
    "{{ strftime_now('%Y') }}",
    "{{ environment.loader.x }}",
    "{% for m in messages %}{{ loop.__class__ }}{% endfor %}",
    "{% for m in messages %}{{ loop._iterable.x }}{% endfor %}",
    "{% set n = namespace() %}{{ n.__class__.x }}",
]
BOMBS = [
    "{{ 'x' * 100000000 }}",
    "{{ 100000000 * 'x' }}",
    "{{ messages * 100000000 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ 'x' | center(999999999) }}",
    "{{ 'x'.ljust(999999999) }}",
    "{{ 'x'.zfill(999999999) }}",
    "{{ 'x'.join(messages) }}",
    "{% for i in range(999999999) %}x{% endfor %}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.s = n.s.replace('x', n.s) %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.s = n.s | replace('x', n.s) %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] | join %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(i=3) %}{% for i in range(90) %}{% set n.i = n.i * n.i %}{% endfor %}",
    "{{ messages | tojson(indent=999999999) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_escapes_are_refused(source: str) -> None:
    """Either an error, or nothing at all comes out; and the messages stay as they were."""
    messages = json.loads(json.dumps(MESSAGES))
    try:
        shown = ChatTemplate(source).render(messages)
    except TemplateError:
        shown = ""
    assert shown == ""
    assert messages == MESSAGES


@pytest.mark.parametrize("source", BOMBS)
def test_small_templates_cannot_make_large_things(source: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(MESSAGES)


def test_output_is_bounded() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    message = {"role": "user", "content": "x" * (OUTPUT_MAX_CHARS // 2)}
    assert len(template.render([message, message])) == OUTPUT_MAX_CHARS
    with pytest.raises(TemplateError, match="characters of output"):
        template.render([message, message, message])


def test_source_is_bounded() -> None:
    ChatTemplate("x" * SOURCE_MAX_CHARS)
    with pytest.raises(TemplateError, match=r"found 65537 characters, expected at most 65536"):
        ChatTemplate("x" * (SOURCE_MAX_CHARS + 1))


@pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% frobnicate %}", "{{ x | no_such }}"])
def test_a_template_that_does_not_compile_is_refused(source: str) -> None:
    with pytest.raises(TemplateError, match="does not compile"):
        ChatTemplate(source)


def test_failures_never_quote_messages() -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("{{ messages[0]['content'] | int + messages }}").render(
            [{"role": "user", "content": "SECRET"}]
        )
    assert "SECRET" not in str(caught.value)


def test_template_file_of_a_folder_is_used(tiny: tuple[Path, object]) -> None:
    from enclave_worker.engine.models.folder import ModelFolder

    folder = ModelFolder.read(tiny[0])
    assert folder.template is not None
    text = ChatTemplate(folder.template, folder.special).render([{"role": "user", "content": "a"}])
    assert text == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
