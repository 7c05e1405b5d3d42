"""Chat templates of the shapes that model families use, written for the tests."""

from __future__ import annotations

from support.tiny import CHATML

LLAMA_3_LIKE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{%- endif %}"
)

GEMMA_LIKE = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}"
    "{%- endif %}"
    "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}"
)

# Thoughts of past turns are left out; the last answer gets a block of thought even if empty.
QWEN_3_LIKE = (
    "{%- set ns = namespace(last_user=-1) %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}"
    "{%- set ns.last_user = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.role == 'assistant' %}"
    "{%- set thought = '' %}{%- set answer = message.content %}"
    "{%- if '</think>' in answer %}"
    "{%- set thought = answer.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set answer = answer.split('</think>')[-1].lstrip('\n') %}"
    "{%- endif %}"
    "{%- if loop.index0 > ns.last_user %}"
    "{{- '<think>\n' + thought + '\n</think>\n\n' }}"
    "{%- endif %}"
    "{{- answer }}"
    "{%- else %}{{- message.content }}{%- endif %}"
    "{{- '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)

# The system text stands in the last user turn, so no shorter rendering is a prefix of a longer.
MISTRAL_LIKE = (
    "{{- bos_token }}"
    "{%- set ns = namespace(system='', last_user=-1) %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'system' %}{%- set ns.system = message.content + '\n\n' %}"
    "{%- elif message.role == 'user' %}{%- set ns.last_user = loop.index0 %}{%- endif %}"
    "{%- endfor %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}"
    "{{- '[INST] ' + (ns.system if loop.index0 == ns.last_user else '') }}"
    "{{- message.content + ' [/INST]' }}"
    "{%- elif message.role == 'assistant' %}"
    "{{- ' ' + message.content + eos_token }}"
    "{%- endif %}"
    "{%- endfor %}"
)

# The generation prompt opens a thought that a rendered answer does not have.
THOUGHT_OPENING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)

GENERATION_BLOCKS = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CHAT_TEMPLATES = {
    "chatml": CHATML,
    "llama-3": LLAMA_3_LIKE,
    "gemma": GEMMA_LIKE,
    "qwen-3": QWEN_3_LIKE,
    "mistral": MISTRAL_LIKE,
    "thought-opening": THOUGHT_OPENING,
    "generation-blocks": GENERATION_BLOCKS,
}
