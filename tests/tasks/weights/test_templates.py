"""Chat templates: the engine's dialect parses, bombs and reaches outside are refused, nothing is computed."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._weights.names import LARGEST, Kind
from tasks._weights.templates import judge_template
from tasks.errors import Refused

NAME = "chat_template.jinja"


@pytest.mark.parametrize(
    "template",
    [
        "{%- for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{% endfor %}",
        "{% generation %}{{ m.content }}{% endgeneration %}",
        "{% for m in messages %}{% if m is none %}{% continue %}{% else %}{% break %}{% endif %}{% endfor %}",
        "{% set ns = namespace(found=false) %}{{ raise_exception('no') if not ns.found }}{{ strftime_now('%d') }}",
        "{% macro show(x) %}{{ '  ' * x }}{{ tools | tojson(indent=4) }}{% endmacro %}{{ show(2) }}",
        "{{ '{\n' | indent(4, first=true) }}{{ '-' * 40 }}{{ 1024 * 1024 * 1024 }}{{ 'a' ~ 'b' + 'c' }}",
        "__init__ {{ '__header__' }}",
        "",
    ],
)
def test_reads_the_engines_dialect(template: str) -> None:
    """What transformers and vLLM compile is let pass, and so is a constant that stays small."""
    judge_template(NAME, template)


@pytest.mark.parametrize(
    "expression",
    [
        "'a' * 10**9",
        "[0] * 999999999",
        "10**9**9",
        "('a' if true else x) * 999999999",
        "('a' or x) * 999999999",
        "'x' | center(10**9)",
        "'x' | center(*[10**9])",
        "'x' | center(**{'width': 10**9})",
        "'%99999999d' | format(1)",
        "'%99999999d' % 1",
        "1.5 | round(10**9)",
        "('a' * 9000) | batch(1) | join('b' * 9000)",
        "'a'" + " | replace('a', 'aaaaaaaa')" * 20,
    ],
)
def test_refuses_a_bomb_of_constants(expression: str) -> None:
    """Jinja would compute it while it compiles, before the first request."""
    with pytest.raises(Refused, match=rf"'{NAME}' .* constants, at line 2, grow too large"):
        judge_template(NAME, f"\n{{{{ {expression} }}}}")


@pytest.mark.parametrize(
    ("template", "rule"),
    [
        ("{% if %}", "cannot parse"),
        ("{{ 'open", "cannot parse"),
        ("{% do x.append(1) %}", "cannot parse"),
        ("{{" + "(" * 5_000, "nested too deeply"),
        ("{{ " + "+".join("1" * 3_000) + " }}", "nested too deeply"),
        ("{% if x %}" * 2_000, "nested too deeply"),
        ("{{ {[1]: 2} }}", "cannot compute"),
        ("{{ 10**5000 ~ 'a' }}", "cannot compute"),
        ("x" * (LARGEST[Kind.TEMPLATE] + 1), "262,144 is the most"),
        ("{% include '/etc/passwd' %}", "another file"),
        ("{% extends 'x' %}", "another file"),
        ("{% import 'x' as y %}", "another file"),
        ("{% from 'x' import y %}", "another file"),
        ("{{ ''.__class__.__mro__ }}", "reaches for '__mro__'"),
        ("{{ messages['__globals__'] }}", "reaches for '__globals__'"),
        ("{{ messages['__glo' ~ 'bals__'] }}", "reaches for '__globals__'"),
        ("{{ messages | attr('__init__') }}", "reaches for '__init__'"),
    ],
)
def test_refuses_what_no_template_needs(template: str, rule: str) -> None:
    """The refusal names the file and the rule."""
    with pytest.raises(Refused, match=rule) as caught:
        judge_template(NAME, template)

    assert repr(NAME) in str(caught.value)


@settings(max_examples=50)
@given(st.text("{}%'a1*|()[]x~., =:\ud800", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing in a template raises anything but a refusal."""
    for template in (text, f"{{{{ {text} }}}}"):
        with suppress(Refused):
            judge_template(NAME, template)
