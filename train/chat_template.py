"""The Harmony chat template that gpt-oss is trained and served with here.

It is TRL's own training variant of the gpt-oss template (the original plus generation marks around
assistant turns), read from the installed package, with one change: the date comes from the template
argument `current_date` where one is given. Labels would otherwise change from day to day.
"""

from importlib import resources

from train.errors import TrainError

CLOCK = 'strftime_now("%Y-%m-%d")'
PINNABLE = f"(current_date if current_date is defined else {CLOCK})"


def harmony() -> str:
    """The template's text; TrainError where the installed TRL's template is not the known one."""
    template = resources.files("trl").joinpath("chat_templates/gptoss_training.jinja").read_text()
    if template.count(CLOCK) != 1:
        raise TrainError("trl's gpt-oss template no longer writes the date as expected.")
    return template.replace(CLOCK, PINNABLE)
