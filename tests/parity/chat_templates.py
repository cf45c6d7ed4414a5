"""Chat templates in the forms that published models bring along, written for these tests: what a conversation of one question reaches is read,
what tools, images and older turns would reach is there to be passed over."""

CHATML = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You answer in one sentence.<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# A default system prompt, tools, and text that never comes from one question.
CHATML_TOOLS = """{#- what the model was trained on: "{{ tools }}" #}
{%- macro described(tool, depth=0) %}{{ tool | tojson(indent=2) }}{% endmacro %}
{%- if tools %}
    {{- "<|im_start|>system\\n" }}
    {%- for tool in tools %}
        {{- described(tool) ~ {"name": {"first": tool.name, "none": None}}|tojson }}
    {%- endfor %}
    {{- '{"name": "}}"}<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role in ['user', 'assistant'] and not message.tool_calls %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.tool_calls %}
        {%- for name, value in message.tool_calls.items() %}
            {{- name.title() * 2 }}
            {%- break %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Looks for the last question first; thoughts of older answers are left out, and an empty one is written unless it is asked for.
CHATML_THINKS = """{%- set ns = namespace(open=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" and not (message.content.startswith('<answer>') and message.content.endswith('</answer>')) %}
        {%- set ns.open = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set thought = '' %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' %}
        {%- if message.thought is defined and message.thought is not none %}
            {%- set thought = message.thought %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

# Trims, writes BOS in front, as Llama 3 does with other names.
HEADERS = """{% set rest = messages %}{% for message in rest %}{% set content = '<|im_start|>' + message['role'] + '<|im_end|>\\n\\n' + message['content'] | trim + '<|endoftext|>' %}
{%- if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant<|im_end|>\\n\\n' }}{% endif %}"""

# A system turn that is always written, with a date, as Llama 3.1 does.
DATED = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined and False %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|im_start|>system\\n" }}
{%- if tools is not none %}
    {{- "Environment: " ~ tools | join(", ") | default('x', true) }}
{%- endif %}
{{- "Today is " + date_string + ".\\n" }}
{{- system_message }}
{{- "<|im_end|>\\n" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Turns between brackets, in which roles must alternate, as Llama 2 and Mistral write them.
BRACKETS = """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}
{%- for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{%- if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}
{%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

# Filters before the loop, in double quotes.
SELECTED = """{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- for message in messages | rejectattr("role", "equalto", "tool") | selectattr("tool_calls", "undefined") %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == users[-1]) %}{{- "[TOOLS]" }}{%- endif %}
        {{- "[INST]" + message["content"] + "[/INST]" }}
    {%- else %}
        {%- generation %}{{- message["content"] }}{{- eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}
"""

# Text between tags, white space by the settings of transformers alone.
PLAIN_TEXT = """{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
<|im_start|>system
  Be brief.<|im_end|>
    {% endif %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

TEMPLATES = {"chatml": CHATML, "chatml_tools": CHATML_TOOLS, "chatml_thinks": CHATML_THINKS, "headers": HEADERS, "dated": DATED, "brackets": BRACKETS,
             "selected": SELECTED, "plain_text": PLAIN_TEXT}

# Small ones, each over the same variables: what white space goes, what an expression gives.
VARIABLES = {"number": 7, "text": "one two", "padded": "  x\n", "list": ["a", "b", "c"], "object": {"key": "value", "none": None}, "yes": True, "nothing": None, "empty": [], "word": "ÄRGER"}
SNIPPETS = [
    "a\n  {% if yes %}\n  b\n  {% endif %}\nc\n", "a  {%- if yes -%}  b  {%- endif -%}  c", "a  {%+ if yes +%}\n  b{% endif %}\n", "x {# gone #} y\n  {# gone #}\nz", "x {#- gone -#} y",
    "  {{ number }}\n  {{- number -}}\n  {{ number }}  \n\n", "a\r\n{% if yes %}\r\nb{% endif %}\rc\r\n", "{{ '}}' }}{{ \"%}\" }}{% if '%}' %}!{% endif %}", "{ {% if yes %}%}{% endif %} } { { }}",
    "\n  {% set x = 1 %}\n\n  {% set x = 2 %}  {{ x }}\n", "{{ text }}\n    {% if yes %} a {% endif %}\nb", "{% if yes %}\n\n\n{% endif %}", "{%- for one in list %}\n  {{ one }}\n{%- endfor %}\n!",
    "{% for one in list %}{{ loop.index }}/{{ loop.length }}{{ one }}{{ ', ' if not loop.last }}{% endfor %}", "{% for one in empty %}x{% else %}none{% endfor %}",
    "{% for one in list if one != 'b' %}{{ loop.index0 }}{{ one }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}", "{% for i in range(2, 5) %}{{ i }}{% for j in range(i) %}.{% endfor %}{{ loop.first }}{% endfor %}",
    "{% set x = 'out' %}{% for one in list %}{% set x = one %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x='out', n=0) %}{% for one in list %}{% set ns.x = one %}{% set ns.n = ns.n + 2 %}{% endfor %}{{ ns.x }}{{ ns.n }}",
    "{% if yes %}{% set x = 'in' %}{% endif %}{{ x }}", "{% set x %}a{{ number }}b{% endset %}{{ x | length }}{{ x }}", "{% if nothing %}a{% elif number > 6 %}b{% elif yes %}c{% else %}d{% endif %}",
    "{% if not yes or nothing %}a{% else %}b{% endif %}", "{{ missing }}{{ object.missing }}{{ list[9] }}|", "{{ missing is defined }}{{ object.key is defined }}{{ object.missing is undefined }}{{ object['none'] is defined }}",
    "{{ nothing is none }}{{ text is string }}{{ list is string }}{{ object is mapping }}{{ list is iterable }}{{ number is number }}{{ yes is boolean }}{{ yes is true }}{{ yes is not false }}{{ number is integer }}",
    "{{ number + 2 }}{{ number - 9 }}{{ -3 + 1 }}{{ number % 4 }}{{ -7 % 4 }}{{ 'a' + 'b' ~ 1 ~ true }}", "{{ 1 < 2 }}{{ 2 <= 1 }}{{ 'b' > 'a' }}{{ number >= 7 }}{{ number == 7 }}{{ text != 'x' }}",
    "{{ 'wo' in text }}{{ 'b' in list }}{{ 'key' in object }}{{ 'x' not in list }}{{ not 'a' in list }}", "{{ list[0] }}{{ list[-1] }}{{ list[1:] | join }}{{ list[:-1] | join('+') }}{{ list[::-1] | join('') }}{{ text[1:3] }}{{ text[::-1] }}{{ word[0] }}",
    "{{ object['key'] }}{{ object.key }}{{ object.get('key') }}{{ object.get('x') }}{{ object.get('x', 'y') }}{{ list[number - 6] }}", "[{{ padded.strip() }}][{{ padded.lstrip() }}][{{ padded.rstrip() }}][{{ padded | trim }}]",
    "{{ '--a-b-'.strip('-') }}{{ '--a'.lstrip('-') }}{{ 'a\n\n'.rstrip('\n') }}{{ '---'.strip('-') }}|", "{{ text.split(' ')[1] }}{{ text.split('x') | length }}{{ text.replace('one', 'two') }}{{ text.startswith('one') }}{{ text.endswith('one') }}",
    "{{ text.upper() }}{{ word | lower }}{{ word.capitalize() }}{{ text | upper }}{{ text | capitalize }}{{ list | first }}{{ list | last }}{{ text | last }}{{ list | length }}{{ object | length }}",
    "{{ missing | default('d') }}{{ nothing | default('d') }}{{ nothing | default('d', true) }}{{ '' | default('e', true) }}{{ text | default('d') }}{{ number | string | length }}{{ text | list | join('.') }}",
    "{{ yes and 'a' }}{{ nothing or 'b' }}{{ '' or empty or 'c' }}{{ yes and not nothing }}", "{{ 'a' if nothing else 'b' if yes else 'c' }}{{ 'x' if nothing }}|", "{{ true }}{{ True }}{{ none }}{{ None }}{{ false and x }}",
    "{% set messages = list[1:] %}{{ messages[0] }}{{ list[0] }}", "{{ (list + list) | length if nothing else 2 }}", "{% generation %}a{% endgeneration %}b", "{% if nothing %}{{ 1 / 0 * x() }}{% filter upper %}x{% endfilter %}{% endif %}ok",
    "{% macro f(x) %}{{ x }}{% endmacro %}ok", "{{ '\\t|\\n|\\'|\\\\' }}", "{% for one in [number, 'x', list[0]] %}{{ one }}{% endfor %}", "{% set x = [1, 2] %}{{ 2 in x }}{{ x == [1, 2] }}",
]
