"""results.csv as the service writes it, and the page that is drawn of it."""

import base64

from scripts.azure.openai import curves

TABLE = """step,train_loss,train_mean_token_accuracy,valid_loss,validation_mean_token_accuracy,\
full_valid_loss,full_valid_mean_token_accuracy
1,2.5,0.4,2.6,0.3,,
2,1.5,0.6,-1,-1,1.9,0.5
3,0.5,0.9,1.7,0.5,2.1,0.4
"""


def test_the_loss_of_the_whole_file_goes_before_the_batchs() -> None:
    steps = curves.parse(TABLE)
    assert [step.valid_loss for step in steps] == [2.6, 1.9, 2.1]
    assert [step.train_loss for step in steps] == [2.5, 1.5, 0.5]
    assert steps[0].valid_accuracy == 0.3


def test_base64_is_read_too_and_nonsense_is_nothing() -> None:
    assert curves.parse(base64.b64encode(TABLE.encode()).decode()) == curves.parse(TABLE)
    assert curves.parse("") == curves.parse("hello") == ()


def test_the_page_stands_alone_and_marks_what_is_deployed() -> None:
    page = curves.page("job <1>", curves.parse(TABLE), 2, "the lowest & best")
    assert page.count("<polyline") == 2
    assert "job &lt;1&gt;" in page and "the lowest &amp; best" in page
    assert "deployed" in page
    assert "http" not in page.replace("https://", "")


def test_a_page_of_nothing_says_so() -> None:
    assert "measured nothing" in curves.page("job", ())
