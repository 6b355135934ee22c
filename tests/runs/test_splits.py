"""Rules of the split and of the weights come back from their text, which names them in a step."""

import pytest
from hepfaas.runs.splits import USUAL_SPLIT, SplitRule
from hepfaas.runs.weighting import Balance, Weighting

RULES = [USUAL_SPLIT, SplitRule((0.5, 0.3, 0.2)), SplitRule(training="event % 2"), SplitRule((0.5, 0.3, 0.2), "x")]


def test_different_rules_have_different_texts_and_the_usual_one_has_none() -> None:
    assert [SplitRule.from_text(rule.text) for rule in RULES] == RULES
    assert len({rule.text for rule in RULES}) == len(RULES)
    assert USUAL_SPLIT.text == ""


@pytest.mark.parametrize(
    ("rule", "drawn"),
    [
        (USUAL_SPLIT, (0.64, 0.16, 0.2)),
        (SplitRule(training="event % 2"), (0.8, 0.2, 0.0)),
        (SplitRule((0.5, 0.3, 0.2), "x"), (0.625, 0.375, 0.0)),
    ],
)
def test_where_an_expression_names_the_test_events_the_others_are_drawn_in_their_ratio(
    rule: SplitRule, drawn: tuple[float, float, float]
) -> None:
    assert rule.drawn == pytest.approx(drawn)
    assert sum(rule.drawn) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("weighting", "expressions", "n_bins"),
    [
        (Weighting(), (), 0),
        (Weighting(weight="w", label="y", negative="abs", balance=Balance()), ("w", "y"), 1),
        (Weighting(weight="w", balance=Balance("pt", (0.0, 10.0, 50.0))), ("w", "pt"), 2),
    ],
)
def test_a_weighting_comes_back_from_its_text_and_names_its_expressions(
    weighting: Weighting, expressions: tuple[str, ...], n_bins: int
) -> None:
    assert Weighting.from_text(weighting.text) == weighting
    assert weighting.expressions == expressions
    assert (weighting.balance.n_bins if weighting.balance else 0) == n_bins
