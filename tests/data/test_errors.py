from ddpm_eval.data.errors import one_line


def test_a_message_takes_one_line_and_an_empty_one_is_the_type():
    assert one_line(ValueError("first\n  second\tthird\n")) == "first second third"
    assert one_line(RuntimeError()) == "RuntimeError"
